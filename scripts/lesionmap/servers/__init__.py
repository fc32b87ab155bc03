"""Slides on servers.

- ``remote``: ask servers for slides, and fetch them
- ``urls``: their addresses
"""

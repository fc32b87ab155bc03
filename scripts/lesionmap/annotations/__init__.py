"""Pathologists' outlines and the class masks drawn from them.

- ``canonical``: any format to the one canonical GeoJSON
- ``formats``: read each program's export
- ``masks``: draw masks of any box
- ``classes``: class codes
"""

"""The deep-zoom viewer of a slide's page.

- ``view``: cut one slide and its map into tiles
- ``assets``: the scripts and styles that all pages share
"""

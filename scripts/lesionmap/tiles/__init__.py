"""Tile stores: normalised regions and tiles with their masks (METHOD.md §1.3).

- ``extraction``: from a slide to its store
- ``settings``: how slides are cut, as the config says
- ``store``: read and write a store
- ``region_reader``: the pixels of a region as the network sees them
- ``codec``: how pixels are compressed
- ``summary``: the cohort's table
"""

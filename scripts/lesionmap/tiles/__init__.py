"""Tile stores: normalised regions and tiles with their masks (METHOD.md §1.3).

- ``extraction``: cut a slide into its tile store
- ``settings``: the config section ``tiles``
- ``store``: read and write a store
- ``region_reader``: read the pixels of a region as the network sees them
- ``codec``: how pixels are compressed
- ``summary``: the table of the whole cohort
"""

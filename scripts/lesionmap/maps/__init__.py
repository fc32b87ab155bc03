"""Maps of whole slides, which may be larger than memory.

- ``ome_tiff``: write maps as pyramidal OME-TIFF
- ``map_file``: read them
- ``on_disk``: arrays on disk, a few rows at a time
- ``components``: connected lesions
- ``probability``: how probability is stored
"""

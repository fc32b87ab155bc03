"""Maps of whole slides, which may be larger than memory.

- ``ome_tiff``: write and read maps
- ``on_disk``: arrays on disk, a few rows at a time
- ``components``: connected lesions
- ``probability``: how probability is stored
"""

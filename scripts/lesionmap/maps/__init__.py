"""Maps of whole slides, which are larger than memory.

- ``ome_tiff``: write and read them
- ``on_disk``: arrays on disk, a few rows at a time
- ``components``: connected lesions
- ``probability``: probability as it is stored
"""

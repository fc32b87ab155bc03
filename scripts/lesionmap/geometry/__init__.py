"""Pure arithmetic of boxes and pixels.

- ``tiling``: regions and tiles
- ``resampling``: area-true resampling
"""

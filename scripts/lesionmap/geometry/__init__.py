"""Pure arithmetic of boxes and pixels.

- ``tiling``: lay out regions and tiles
- ``resampling``: resample by area
"""

"""Pure arithmetic of boxes, pixels and outlines.

- ``tiling``: lay out regions and tiles
- ``resampling``: resample by area
- ``identity``: ids of lesions
"""

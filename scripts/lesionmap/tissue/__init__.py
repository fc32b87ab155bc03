"""Where there is tissue on a slide, and how good it is.

- ``detection``: find tissue, folds and ink
- ``mask``: look tissue up by level-0 coordinates
- ``quality``: blur, pen and folds of a region
"""

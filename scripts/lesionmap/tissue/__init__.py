"""Find the tissue on a slide, and judge its quality.

- ``glass``: find bare glass and its colour
- ``detection``: find tissue, folds and ink
- ``mask``: look up tissue by level-0 coordinates
- ``quality``: blur, pen and folds of a region
"""

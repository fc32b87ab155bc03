"""Pathologists' outlines, and the class masks made from them.

- ``canonical``: convert any format to the canonical GeoJSON
- ``formats``: read the file formats of annotation programs
- ``placement``: check that outlines lie on tissue
- ``masks``: rasterise the masks of any box
- ``classes``: class codes
- ``corrections``: what comes back from a review
"""

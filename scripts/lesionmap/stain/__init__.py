"""Stain normalisation (METHOD.md §1.2).

- ``profile``: the stain profile of a slide
- ``fit``: fit a profile to tissue pixels
- ``separation``: methods that find a stain basis
- ``reference``: choose the stain that all slides are normalised to
- ``match``: decide how one slide is normalised to it
- ``table``: normalise colours with a lookup table
- ``comparison``: compare the stains of all slides
- ``plots``: plot a normalisation
"""

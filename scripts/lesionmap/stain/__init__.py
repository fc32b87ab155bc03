"""Stain normalisation (METHOD.md §1.2).

- ``profile``: a slide's own stains
- ``fit``: fit them on tissue pixels
- ``separation``: the ways to find a stain basis
- ``reference``: choose what every slide is brought to
- ``match``: decide how one slide is brought to it
- ``table``: the table of all colours that does it
- ``comparison``: the stains of all slides side by side
- ``plots``: what a match looks like
"""

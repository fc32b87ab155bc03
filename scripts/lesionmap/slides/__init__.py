"""Slides: the slide sheet, inspection, and reading at any µm/px.

- ``sheet``: the slide sheet
- ``inspection``: what a slide is, and whether it can be used
- ``sampling``: sample boxes of a level, for checks of pixels: brightfield, or fluorescence and dark-field
- ``slide``: open a slide and read any box
- ``damage``: how much of a slide may be unreadable
- ``cache``: copies of slides on a nearby disk
- ``identity``: what a slide is made of: its files, their state, and digests of their content
"""

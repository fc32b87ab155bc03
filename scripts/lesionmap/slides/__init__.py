"""Slides: the slide sheet, inspection, and reading at any µm/px.

- ``sheet``: the slide sheet
- ``inspection``: what a slide is, and whether it can be used
- ``illumination``: brightfield, or fluorescence and dark-field
- ``sampling``: sample boxes of a level, for checks of pixels
- ``slide``: open a slide and read any box
- ``damage``: how much of a slide may be unreadable
- ``cache``: copies of slides on a nearby disk
- ``file_checks``: the files of a slide, and whether they are complete
"""

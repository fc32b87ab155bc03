"""The embedded demo cohort: ``python -m lesionmap.demo.cohort FOLDER``.

- ``cohort``: write slides, annotations and the slide sheet
- ``painting``: paint the pixels of a slide
- ``outlines``: draw the outlines of its structures
"""

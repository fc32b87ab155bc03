"""The embedded demo cohort: ``python -m lesionmap.demo.cohort FOLDER``.

- ``cohort``: slides, annotations and sheet
- ``painting``: the pixels of a slide
- ``outlines``: where things are on it
"""

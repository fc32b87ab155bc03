"""From a probability map to lesions; no network.

- ``find_lesions``: all that is written of a slide's lesions
- ``postprocessing``: smoother outlines, no specks
- ``export``: outlines and table
- ``dicom``: a DICOM Segmentation
"""

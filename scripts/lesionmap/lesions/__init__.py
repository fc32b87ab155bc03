"""From a probability map to lesions, without the network.

- ``find_lesions``: find a slide's lesions and write all their files
- ``postprocessing``: smoother outlines, no specks
- ``export``: outlines and table
- ``dicom``: a DICOM Segmentation
"""

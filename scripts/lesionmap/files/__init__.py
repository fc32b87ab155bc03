"""Read and write files; each is written whole or not at all.

- ``atomic``: files and folders
- ``records``: text, JSON, tables, digests
- ``pictures``: PNG and small TIFF
- ``schema``: JSON schemas
- ``disk_errors``: errors of full and read-only disks
- ``model_metadata``: a model file's metadata, read without torch
"""

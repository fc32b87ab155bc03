"""Files, written whole or not at all.

- ``atomic``: files and folders
- ``records``: text, JSON, tables, digests
- ``pictures``: PNG and small TIFF
- ``schema``: JSON schemas
- ``disk_errors``: full and read-only disks
- ``model_metadata``: what a model file says of itself, without torch
"""

"""LesionMap: find lesions in whole-slide images. Knows nothing of Snakemake."""

__version__ = "0.1.0"

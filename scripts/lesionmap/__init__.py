"""LesionMap: find lesions in whole-slide images. Knows nothing of Snakemake.

Nineteen folders, one for each stage. A folder imports only folders below it. From the top they are: run, report,
training, inference, evaluation, tiles, viewer, stain, metrics, annotations, tissue, lesions, slides, network, maps,
jobs, demo, geometry, files. All may import errors, formatting, plotting and version.
"""

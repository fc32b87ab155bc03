"""LesionMap: find lesions in whole-slide images. Knows nothing of Snakemake.

Twenty-one folders, most of them named as a stage. A folder imports only folders below it. From the top they are:
experiments, run, report, training, inference, evaluation, tiles, viewer, stain, metrics, annotations, lesions, tissue,
slides, servers, network, maps, jobs, demo, geometry, files. All may import errors, formatting, plotting and version.
"""

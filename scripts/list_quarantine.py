"""Adapter of rule list_quarantine."""

from lesionmap.jobs.log import job_log
from lesionmap.run.quarantine_tables import RunFiles, list_quarantine

with job_log(snakemake.log[0]):
    paths = snakemake.input
    exports = [*paths.dicom, *paths.views, *paths.stain_pictures, *paths.checks, *paths.second]
    files = RunFiles(paths.records, paths.tiles, paths.maps, [*paths.lesions, *paths.metrics, *exports])
    list_quarantine(files, *snakemake.output)

# Config, slide sheet, and the look-ups that rules share.

import sys

sys.path.insert(0, f"{workflow.basedir}/scripts")

from pathlib import Path

from lesionmap.errors import SettingsError
from lesionmap.manifest import good_slides
from lesionmap.provenance import code_digest
from lesionmap.settings import check_config, check_reference, read_sheet

try:
    check_config(config, f"{workflow.basedir}/workflow/schemas/config.schema.yaml")
    SLIDES = read_sheet(config["slides"], f"{workflow.basedir}/workflow/schemas/slides.schema.yaml")
    if config["model"]["path"] is None:
        check_reference(SLIDES, config["stain"]["reference"])
except SettingsError as error:
    raise WorkflowError(str(error))


wildcard_constraints:
    slide=r"[A-Za-z0-9][A-Za-z0-9._-]*",


def slide_file(wildcards):
    """The slide's file; nothing while it is missing, which its inspection then reports."""
    path = SLIDES[wildcards.slide].path
    return path if Path(path).exists() else []


def annotation_file(wildcards):
    """The slide's annotation as its program exported it."""
    return SLIDES[wildcards.slide].annotation


def slide_row(wildcards):
    """The slide's row of the sheet."""
    return vars(SLIDES[wildcards.slide])


def slide_split(wildcards):
    """What the slide is for: train, val, test or inference."""
    return SLIDES[wildcards.slide].split


def files_exist(wildcards):
    """Whether the slide and its annotation are there: when one turns up, the slide is inspected again."""
    row = SLIDES[wildcards.slide]
    return [Path(path).exists() for path in (row.path, row.annotation) if path]


def good(*splits):
    """Readable slides of some splits; known once the manifest is built."""
    return good_slides(checkpoints.build_manifest.get().output.manifest, splits)


def model_file(wildcards):
    """The model to infer with: the config's, else the one that is trained."""
    return config["model"]["path"] or "results/model/lesionmap.safetensors"

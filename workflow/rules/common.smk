# Config, slide sheet, and the look-ups of their values that rules share.

import gc

from lesionmap.errors import ModelError, RemoteError, SettingsError
from lesionmap.evaluation.groups import STAIN
from lesionmap.files.schema import read_schema
from lesionmap.jobs.provenance import code_digest
from lesionmap.run.config import as_typed, check_config, check_files, check_remote, inference_mpp, inspection_settings
from lesionmap.run.config import judged_view, lesion_settings, map_settings, reference_file, tile_settings
from lesionmap.run.config import train_settings
from lesionmap.run.model_settings import adopt_model, input_settings
from lesionmap.slides.identity import slide_state
from lesionmap.slides.sheet import read_sheet, unknown_slide
from lesionmap.servers.urls import is_remote

# A plan is millions of objects that all stay, so Python collects garbage less often (this saves a sixth of the time).
gc.set_threshold(100_000, 50, 1000)


class SlideSheet(dict):
    """Slide id → row; an id that is not there, as in a misspelt target, ends the plan with a message."""

    def __missing__(self, slide):
        raise WorkflowError(unknown_slide(slide, self))


try:
    config.update(as_typed(config, read_schema(f"{HOME}/workflow/schemas/config.schema.yaml")))
    check_config(config, f"{HOME}/workflow/schemas/config.schema.yaml")
    check_files(config)
    sheet, roots, ignored = (config["slides"][key] for key in ("sheet", "roots", "ignored_columns"))
    grouped = [name for name in config["evaluation"]["groups"] if name != STAIN]
    SLIDES = SlideSheet(read_sheet(sheet, f"{HOME}/workflow/schemas/slides.schema.yaml", roots, ignored, grouped))
    check_remote(config, SLIDES)
    REFERENCE_FILE = reference_file(config, SLIDES)
    # What rules compute with: the config, in which a model of model.path has set what its training slides had.
    SETTINGS = adopt_model(config, f"{HOME}/workflow/schemas/config.schema.yaml")
except (ModelError, SettingsError) as error:
    raise WorkflowError(str(error))


wildcard_constraints:
    slide=r"[A-Za-z0-9][A-Za-z0-9._-]*",


def annotation_path(wildcards):
    """The slide's annotation as its program exported it."""
    return SLIDES[wildcards.slide].annotation


def state_of(path):
    """Size and date of the file that a look-up names, so that any exchange is noticed; an older file, too."""
    return lambda wildcards: slide_state(path(wildcards))


def annotation_exists(wildcards):
    """Whether the slide's annotation exists: if one appears, inspect again."""
    path = annotation_path(wildcards)
    return not path or Path(path).exists()


def if_annotated(path):
    """Ask for a file of the slide's annotation; for nothing if the slide needs none."""
    return lambda wildcards: [] if SLIDES[wildcards.slide].split == "inference" else path.format(slide=wildcards.slide)


def annotated_rows():
    """Slides of the sheet whose annotation is used."""
    return [slide for slide, row in SLIDES.items() if row.split != "inference"]


def second_path(wildcards):
    """The second reader's annotation of the slide, as its program exported it."""
    return SLIDES[wildcards.slide].annotation_2


def second_rows():
    """Slides of the sheet whose second annotation is used."""
    return [slide for slide, row in SLIDES.items() if row.second_reader]


def slide_row(wildcards):
    """The columns of the slide's row that its inspection needs."""
    others = ("annotation_2", "mask_mpp", "patient", "site", "white_point", "groups")
    return {key: value for key, value in vars(SLIDES[wildcards.slide]).items() if key not in others}


def stain_settings(wildcards):
    """The settings of the slide's stain fit; the white point of its row goes before that of the config."""
    settings = {key: SETTINGS.config["stain"][key] for key in ("method", "n_pixels", "seed", "white_point")}
    white_point = SLIDES[wildcards.slide].white_point
    return settings | ({"white_point": list(white_point)} if white_point else {})


def mask_mpp(wildcards):
    """µm/px of the slide's annotation, if that is a mask and its row gives it."""
    return SLIDES[wildcards.slide].mask_mpp


def sheet_rows(wildcards):
    """The whole sheet."""
    return [vars(row) for row in SLIDES.values()]


def slide_role(wildcards):
    """The slide's split (train, val, test or inference), and its patient if the sheet names one."""
    row = SLIDES[wildcards.slide]
    return {"split": row.split, "patient": row.patient or None}


def group_columns(wildcards):
    """What the sheet's columns of evaluation.groups say of the slides that may be evaluated."""
    return {row.slide: row.groups for row in SLIDES.values() if row.split in ("val", "test")}


def sheet_patients(wildcards):
    """The patient of each slide, if the sheet names one."""
    return {slide: row.patient or None for slide, row in SLIDES.items()}


def training_patients(wildcards):
    """Patients of the slides that this run's model is trained on or chosen by, as the sheet names them now."""
    rows = [] if config["model"]["path"] else SLIDES.values()
    return {row.slide: row.patient for row in rows if row.split in ("train", "val") and row.patient}


def recorded_patients(wildcards, threads):
    """The same, for the model file to record. No weight depends on them, so a change must train nothing anew."""
    # Snakemake does not compare parameters that are functions of `threads` with those of the last run.
    return training_patients(wildcards)


REMOTE_STATES = {}


def remote_state(address):
    """Size and version of a slide on a server, or why it is unavailable; one job asks for its own slide only."""
    from lesionmap.servers import remote  # most sheets need none of its libraries

    if address not in REMOTE_STATES:
        addresses = [row.path for row in SLIDES.values() if is_remote(row.path)]
        asked = addresses if workflow.is_main_process else [address]
        try:
            REMOTE_STATES.update(remote.states(asked, config["slides"]["roots"], addresses))
        except RemoteError as error:
            raise WorkflowError(str(error))
    return REMOTE_STATES[address]


def watched_state(wildcards):
    """Sizes and dates of the slide's files, or what a server says of it; inspected again if they change."""
    path = SLIDES[wildcards.slide].path
    return remote_state(path) if is_remote(path) else slide_state(path)


def backbone_file(wildcards):
    """Where the backbone's weights come from; nothing for random ones."""
    return initial_weights(config["model"]["weights"], config["model"]["backbone"])


def initial_weights(weights, backbone):
    """The file of a backbone's initial weights; nothing for random ones."""
    return {"none": [], "imagenet": f"resources/backbone/{backbone}.pth"}.get(weights, weights)

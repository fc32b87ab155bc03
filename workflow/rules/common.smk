# Config, slide sheet, and the look-ups of their values that rules share.

import gc

from lesionmap.errors import RemoteError, SettingsError
from lesionmap.jobs.provenance import code_digest
from lesionmap.run.config import check_config, check_remote, inference_mpp, inspection_settings, lesion_settings
from lesionmap.run.config import map_settings, reference_file, tile_settings, train_settings
from lesionmap.run.start_checks import future_date
from lesionmap.slides.sheet import read_sheet
from lesionmap.servers.urls import is_remote

# A plan is millions of objects that all stay, so Python collects garbage less often (this saves a sixth of the time).
gc.set_threshold(100_000, 50, 1000)

try:
    check_config(config, f"{HOME}/workflow/schemas/config.schema.yaml")
    sheet, roots = config["slides"]["sheet"], config["slides"]["roots"]
    SLIDES = read_sheet(sheet, f"{HOME}/workflow/schemas/slides.schema.yaml", roots)
    check_remote(config, SLIDES)
    REFERENCE_FILE = reference_file(config, SLIDES)
except SettingsError as error:
    raise WorkflowError(str(error))


wildcard_constraints:
    slide=r"[A-Za-z0-9][A-Za-z0-9._-]*",


def slide_file(wildcards):
    """The slide's file, whose date shows a change.

    Empty if the file is missing (its inspection reports that), is on a server, or is dated in the future: Snakemake
    refuses results that are older than their inputs. Later rules depend on the slide's record alone.
    """
    path = SLIDES[wildcards.slide].path
    return path if Path(path).exists() and not future_date(path) else []


def slide_date_to_come(wildcards):
    """The slide's date if it is in the future, so that a change is still noticed."""
    return future_date(SLIDES[wildcards.slide].path)


def annotation_file(wildcards):
    """The slide's annotation as its program exported it."""
    return SLIDES[wildcards.slide].annotation


def shown_annotation(wildcards):
    """The slide's annotation in canonical form; nothing for a slide that needs none."""
    return [] if SLIDES[wildcards.slide].split == "inference" else f"results/annotations/{wildcards.slide}.geojson"


def slide_row(wildcards):
    """The columns of the slide's row that its inspection needs."""
    others = ("mask_mpp", "patient", "white_point")
    return {key: value for key, value in vars(SLIDES[wildcards.slide]).items() if key not in others}


def stain_settings(wildcards):
    """The settings of the slide's stain fit; the white point of its row goes before that of the config."""
    settings = {key: config["stain"][key] for key in ("method", "n_pixels", "seed", "white_point")}
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


REMOTE_STATES = {}


def remote_state(address):
    """Size and version of a slide on a server, or why it is unavailable; one job asks for its own slide only."""
    from lesionmap.servers import remote  # most sheets need none of its libraries

    if address not in REMOTE_STATES:
        addresses = [row.path for row in SLIDES.values() if is_remote(row.path)]
        try:
            REMOTE_STATES.update(remote.states(addresses if workflow.is_main_process else [address], addresses))
        except RemoteError as error:
            raise WorkflowError(str(error))
    return REMOTE_STATES[address]


def files_exist(wildcards):
    """Whether the slide and its annotation exist: if one appears, or changes on a server, inspect again."""
    row = SLIDES[wildcards.slide]
    files = [path for path in (row.path, row.annotation) if path]
    return [remote_state(path) if is_remote(path) else Path(path).exists() for path in files]


def backbone_file(wildcards):
    """Where the backbone's weights come from; nothing for random ones."""
    weights = config["model"]["weights"]
    return {"none": [], "imagenet": f"resources/backbone/{config['model']['backbone']}.pth"}.get(weights, weights)

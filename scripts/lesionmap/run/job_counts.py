"""How many jobs a whole run has, by rule. Snakemake itself knows this only once the slides are inspected."""

from collections.abc import Sequence
from pathlib import Path

from lesionmap.run.manifest import is_segmented
from lesionmap.run.settings import RunSettings

LABELLED = ("train", "val", "test")
EVERY = (*LABELLED, "inference")
SPLITS = {  # rules that run once for every readable slide of these splits
    **dict.fromkeys(("find_tissue", "fit_stain", "match_stain", "draw_stain"), EVERY),
    **dict.fromkeys(("import_annotation", "check_annotation"), LABELLED),
    "extract_tiles": ("train", "val"),
    **dict.fromkeys(("map_slide", "find_lesions", "cut_view"), EVERY),
    "evaluate_slide": ("val", "test"),
}
FIRST = ("build_manifest", "choose_reference", "compare_stains", "summarise_tiles")  # these and LAST run once
IN_TRAINING = ("train", "plot_learning_curves")
LAST = ("describe_model", "summarise", "plot_metrics", "list_quarantine", "render_report", "conclude", "all")


def job_counts(n_slides: int, readable: Sequence[tuple[str, str | None]], settings: RunSettings) -> dict[str, int]:
    """Numbers of jobs of a whole run from its start, by rule.

    Parameters
    ----------
    n_slides : int
        Number of slides in the sheet.
    readable : sequence of (split, vendor)
        Of the slides that pass inspection; the vendor is None if it is unknown.
    """
    counts = {"inspect_slide": n_slides} | dict.fromkeys(FIRST, 1)
    for rule, splits in SPLITS.items():
        if settings.trains or rule != "extract_tiles":
            counts[rule] = sum(split in splits for split, _ in readable)
    counts["fetch_backbone"] = int(backbone_to_fetch(settings) is not None)
    counts |= dict.fromkeys(IN_TRAINING if settings.trains else (), 1)
    counts["write_dicom"] = sum(is_segmented(vendor, settings.dicom) for _, vendor in readable)
    counts["compare_models"] = int(settings.compares)
    counts |= dict.fromkeys(LAST, 1)
    return {rule: count for rule, count in counts.items() if count}


def backbone_to_fetch(settings: RunSettings) -> str | None:
    """The file of ImageNet weights that a run will download; None if it needs none or has it."""
    weights = f"resources/backbone/{settings.model.backbone}.pth"
    needed = settings.trains and settings.weights == "imagenet"
    return weights if needed and not Path(weights).is_file() else None

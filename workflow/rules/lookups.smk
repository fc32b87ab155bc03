# Look-ups that rules share, most of them known once the manifest is built.

from functools import cache

from lesionmap.errors import SettingsError
from lesionmap.evaluation.leakage import leaks_in_words, refuse
from lesionmap.files.records import read_json
from lesionmap.run.manifest import good_slides, planned_leaks, segmented_slides
from snakemake.exceptions import IncompleteCheckpointException
from snakemake.io import strip_wildcard_constraints


def refuse_until():
    """Refuse --until where it would leave nothing to do: Snakemake applies it to the jobs that it knows at the start."""
    first = {AS_IMPORTED.modify_rulename(name) for name in ("inspect_slide", "build_manifest")}
    if later := workflow.dag_settings.until & {rule_.name for rule_ in AS_IMPORTED.rules} - first:
        raise WorkflowError(
            f"LesionMap: --until {' '.join(sorted(later))} would do nothing, as slides are to be inspected first. "
            "Remedy: name a target, e.g. snakemake tissue (snakemake --list-target-rules explains all)"
        )


def built(checkpoint):
    """A table that others follow from. Snakemake asks again until it is built; when a job runs, it is there."""
    if not workflow.is_main_process:
        return str(checkpoint.rule.output[0])
    try:
        return checkpoint.get().output[0]
    except IncompleteCheckpointException:  # always at first; then Snakemake looks whether the table is up to date
        if not Path(checkpoint.rule.output[0]).exists():
            refuse_until()
        raise


@cache
def manifest():
    """The table of readable slides."""
    return built(checkpoints.build_manifest)


@cache
def inspected(*splits):
    """Readable slides of some splits; known once the manifest is built."""
    return good_slides(manifest(), splits)


@cache
def annotations_known():
    """Whether the table of annotations is built. Snakemake asks again until it is.

    Once Snakemake has planned a job because of another, it keeps to that. So all that annotations decide, the model and
    the report among it, is unknown until it is clear which annotation has really changed; and which annotations are
    imported again, until it is clear which slide has.
    """
    return bool(manifest() and built(checkpoints.list_annotations))


@cache
def good(*splits):
    """The same as :func:`inspected`, known once the table of annotations is built."""
    return inspected(*splits) if annotations_known() else []


def stained_slides(wildcards):
    """All slides that are not in quarantine, known once the manifest is built."""
    return inspected("train", "val", "test", "inference")


def readable_slides(wildcards):
    """All slides that are not in quarantine."""
    return good("train", "val", "test", "inference")


def dicom_slides(wildcards):
    """Slides whose lesions are also written as DICOM."""
    return segmented_slides(manifest(), config["exports"]["dicom"]) if annotations_known() else []


@cache
def check_leakage():
    """Say which slides are not independent of the model, or refuse them, as soon as the manifest is built."""
    leaks = planned_leaks(manifest(), SLIDES, config["model"]["path"])
    try:
        refuse(leaks if config["evaluation"]["on_leakage"] == "refuse" else {}, "evaluation")
    except SettingsError as error:
        raise WorkflowError(f"LesionMap: {error}")
    if leaks:
        logger.warning(f"LesionMap: {leaks_in_words(leaks)}. Their metrics are marked, and not part of the headline.")


def evaluated_slides(wildcards):
    """Slides whose lesion map is compared with their annotation: those that no weight was fitted to."""
    if workflow.is_main_process:
        check_leakage()
    return good("val", "test")


def if_second_reader(path):
    """Ask for a file of the second reader's annotation; for nothing if there is none, or if it is not used."""
    return lambda wildcards: [path.format(slide=wildcards.slide)] * SLIDES[wildcards.slide].second_reader


def twice_read_slides(wildcards):
    """Those of them that a second reader has annotated."""
    return [slide for slide in evaluated_slides(wildcards) if SLIDES[slide].second_reader]


def annotated_slides(wildcards):
    """Readable slides with an annotation."""
    return good("train", "val", "test")


def val_slides(wildcards):
    """Readable validation slides; there may be none."""
    return good("val")


def train_slides(wildcards):
    """Readable training slides."""
    return annotations_known() and candidates()


def candidates():
    """The same, known once the manifest is built."""
    slides = inspected("train")
    if not slides:
        raise WorkflowError(
            "LesionMap: train: no readable slide has the split 'train'. Remedy: see the verdicts in results/slides/, "
            "add training slides, or set model.path to an existing model."
        )
    return slides


def slides_of_training(wildcards):
    """Readable slides that decide the weights, by split."""
    return {"train": train_slides(wildcards), "val": val_slides(wildcards)}


def tiled_slides(wildcards):
    """Readable slides that are cut into tiles: those that a model is trained on."""
    return [] if config["model"]["path"] else good("train", "val")


def reference_candidates(wildcards):
    """Slides that may be the stain reference, known once the manifest is built; none if a file holds it."""
    named = config["stain"]["reference"]
    if REFERENCE_FILE:
        return []  # with no wait: Snakemake takes a checkpoint that waits for another as done
    manifest()  # so that a touched reference refits nothing
    return [named] if named in SLIDES else candidates()


@cache
def chosen_slide(choice, written_ns):
    """The slide that is the stain reference. Cached for each version of the file, as every slide's plan asks for it."""
    return read_json(choice)["slide"]


def of_reference(path):
    """A file of the reference slide. The choice is no input: while it stays the same, nothing is made again."""
    choice = Path(with_prefix("results/stain/reference/profile.json"))
    return [path.format(slide=chosen_slide(choice, choice.stat().st_mtime_ns))] if choice.exists() else []


def reference_profile(wildcards):
    """The file with the stain that slides are matched to."""
    return [local(REFERENCE_FILE)] if REFERENCE_FILE else of_reference("results/stain/fits/{slide}.json")


def reference_tissue(wildcards):
    """A picture of the reference's tissue; nothing if a file holds the reference."""
    return [] if REFERENCE_FILE else of_reference("results/stain/tissue/{slide}.png")


def once_known(path):
    """Ask for a result of the cohort once it is known what changed, so that a touched file does not make it again."""
    return lambda wildcards: annotations_known() and path


def model_file(wildcards):
    """The model to infer with: the config's, else the one trained here.

    Maps with a given model wait for its stain reference. Else Snakemake, which does not plan what follows from that
    before it is written, might map slides that are matched to it later.
    """
    if path := config["model"]["path"]:
        return built(checkpoints.choose_reference) and local(path)
    return once_known("results/model/lesionmap.safetensors")(wildcards)


def report_tables(wildcards):
    """Small files of the cohort that the report's folder has copies of."""
    named = ("slides", "lesions", "annotated_lesions", "quarantine", "unreadable", "failed_exports", "manifest")
    metrics = ("slides.tsv", "cohort.tsv", "groups.tsv", "readers.tsv", "summary.json")
    compared = ["results/metrics/models.tsv"] if config["evaluation"]["compare"] else []
    if Path(with_prefix("results/review/before")).is_dir():
        compared.append("results/metrics/before_after.tsv")
    paths = [f"results/{name}.tsv" for name in named] + [f"results/metrics/{name}" for name in metrics]
    return annotations_known() and [*paths, *compared, "results/stain/cohort.tsv", "results/model/MODEL_CARD.md"]


def written_paths():
    """Paths of all outputs, logs and benchmarks; those of a slide hold {slide}."""
    paths = {path for rule in AS_IMPORTED.rules for path in (*rule.output, *rule.log, rule.benchmark) if path}
    return sorted(strip_wildcard_constraints(str(path)) for path in paths)


def whole_workflow(wildcards):
    """What the rules write, and for which slides."""
    named = {key: config["slides"][key] for key in ("sheet", "copies")} | {"model": config["model"]["path"]}
    return {"paths": written_paths(), "slides": list(SLIDES), "results": with_prefix("results")} | named

# Look-ups of experiments: variants, folds, and which models map what.

from lesionmap.experiments.folds import read_folds, slides_of_fold
from lesionmap.experiments.variants import changes_in_words, ensembles_of, variants_of
from lesionmap.run.exclusion import excluded_slides

try:
    VARIANTS = variants_of(config, f"{HOME}/workflow/schemas/config.schema.yaml")
    ENSEMBLES = ensembles_of(config["experiments"]["ensemble"], VARIANTS)
except SettingsError as error:
    raise WorkflowError(str(error))
RECIPES = {variant.recipe: variant.training for variant in VARIANTS.values()}
SEEDS, N_FOLDS = config["experiments"]["seeds"], config["experiments"]["folds"]
FOLDS = range(1, N_FOLDS + 1)
N_MODELS = N_FOLDS * len(SEEDS)  # of an ensemble
REFINED = any(variant.config["inference"]["refine"] != "none" for variant in VARIANTS.values())  # and then takes hours


wildcard_constraints:
    recipe="[0-9a-f]{8}",
    variant="[A-Za-z0-9][A-Za-z0-9_-]*",
    run="seed_[0-9]+|ensemble",
    seed="[0-9]+",
    fold="[0-9]+",


def fold_rows(wildcards):
    """Patient and site of the slides that take part: those of the splits train and val."""
    rows = [row for row in SLIDES.values() if row.split in ("train", "val")]
    return {row.slide: {"patient": row.patient, "site": row.site} for row in rows}


def pruned_slides(wildcards):
    """Slides that were taken off the sheet for good."""
    return sorted({row["slide"] for row in excluded_slides(config["slides"]["sheet"])} - set(SLIDES))


@cache
def folds():
    """The fold of each readable slide that takes part, known once the folds are."""
    if config["model"]["path"]:
        raise WorkflowError(
            "LesionMap: experiments train models, and model.path names one. Remedy: remove model.path, or run "
            "`snakemake` without the target experiments."
        )
    slides, known = good("train", "val"), read_folds(built(checkpoints.assign_folds))
    return {slide: known[slide] for slide in slides if slide in known}


def in_role(role):
    """Ask for the slides that a fold's model is trained on, is chosen by, or has not seen."""
    return lambda wildcards: slides_of_fold(folds(), int(wildcards.fold), N_FOLDS, role)


def fold_slides(wildcards):
    """The slides that decide a fold's weights, by split."""
    return {role: in_role(role)(wildcards) for role in ("train", "val")}


def recipe_settings(key):
    """Ask for a part of a recipe's settings."""
    return lambda wildcards: RECIPES[wildcards.recipe][key]


def recipe_training(wildcards):
    """Settings of training of a recipe, with a seed."""
    return RECIPES[wildcards.recipe]["train"] | {"seed": int(wildcards.seed)}


def recipe_backbone(wildcards):
    """Where a recipe's initial weights come from."""
    return initial_weights(RECIPES[wildcards.recipe]["weights"], RECIPES[wildcards.recipe]["model"]["backbone"])


def fold_training(wildcards):
    """The training that a variant takes its model from."""
    recipe = VARIANTS[wildcards.variant].recipe
    path = f"results/experiments/models/{recipe}/seed_{{seed}}/fold_{{fold}}/runs/finished/trained.json"
    return folds() and path.format(**wildcards)


def of_variant(select):
    """Ask for something of a variant's config."""
    return lambda wildcards: select(VARIANTS[wildcards.variant].config)


def of_its_fold(name):
    """Ask for a file of the model that has not seen a slide."""
    path = f"results/experiments/variants/{{variant}}/{{run}}/fold_{{fold}}/{name}"
    return lambda wildcards: folds() and path.format(fold=folds()[wildcards.slide], **wildcards)


def of_all_folds(name):
    """Ask for a file of all models of a variant."""
    return collect(
        f"results/experiments/variants/{{{{variant}}}}/seed_{{seed}}/fold_{{fold}}/{name}", seed=SEEDS, fold=FOLDS
    )


def uncertainty_of(wildcards):
    """Where the models of an ensemble differ; nothing for one model."""
    path = "results/experiments/variants/{variant}/ensemble/lesions/{slide}/uncertainty.ome.tif"
    return path.format(**wildcards) if wildcards.run == "ensemble" else []


def variants_in_words(wildcards):
    """What each variant changes."""
    return {name: changes_in_words(config["experiments"]["variants"].get(name) or {}) for name in VARIANTS}


def held_out_slides(wildcards):
    """Slides that take part in folds, each of which is held out once."""
    return folds()


def fold_table(wildcards):
    """The table of folds, once it is known."""
    return folds() and "results/experiments/folds.tsv"


def test_slides(wildcards):
    """Readable test slides, which no fold holds."""
    return good("test")


def other_slides(wildcards):
    """Readable slides that no fold holds."""
    return good("test", "inference")

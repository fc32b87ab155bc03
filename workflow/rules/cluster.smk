# What rules ask of the machine that runs them, and how a cluster runs many short jobs as one. Rules that take seconds are
# local: they run beside Snakemake itself, as queueing would take longer.


PLACE = {slide: place for place, slide in enumerate(SLIDES)}
# Groups whose jobs wait for all training slides. For each of these jobs Snakemake looks at all that it waits for. This
# takes a minute at half a million pairs of a slide and a training slide, and grows with their number.
AFTER_TRAINING = ("match", "pictures", "infer", "views", "results")
MOST_PAIRS = 1_000_000


def n_training_slides():
    """Slides that a model is trained on in this run."""
    return 0 if config["model"]["path"] else sum(row.split in ("train", "val") for row in SLIDES.values())


def grows(amount):
    """Memory (MB) or time (minutes) that grows with each attempt: twice the amount at the second."""

    def at_attempt(wildcards, attempt):
        return amount * attempt

    return at_attempt


def shard(group, n_slides):
    """Group a rule's jobs by `n_slides` neighbouring slides of the sheet.

    A cluster runs the jobs of a group one after another as one job of its own, if `group-components` of the profile
    names the group. Which slides go together is fixed: Snakemake's own choice changes whenever a checkpoint ends, and
    would then submit running jobs once more. If grouping would take Snakemake too long, each slide is a job of its own.
    """
    alone = group in AFTER_TRAINING and len(SLIDES) * n_training_slides() > MOST_PAIRS

    def of_slide(wildcards):
        if alone or group not in workflow.group_settings.group_components:
            return None
        others = [value for key, value in wildcards.items() if key != "slide"]
        name = "_".join([group, *others, str(PLACE[wildcards.slide] // n_slides)])
        workflow.parent_groupids[name] = group  # lets Snakemake find the profile's setting for it
        return name

    return of_slide


def other_run(wildcards):
    """Whether another Snakemake works in this folder, or was killed there."""
    return any(True for _ in workflow.persistence._read_locks())

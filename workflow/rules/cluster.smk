# What rules ask of the machine that runs them, and how a cluster runs many short jobs as one.


PLACE = {slide: place for place, slide in enumerate(SLIDES)}


# Rules of seconds, which run beside Snakemake itself: to queue would take longer.
localrules:
    build_manifest,
    choose_reference,
    compare_stains,
    conclude,
    describe_model,
    list_quarantine,
    plot_learning_curves,
    plot_metrics,
    summarise_tiles,


def grows(amount):
    """As much at the first attempt, twice as much at the second: for memory (MB) and time (minutes)."""

    def at_attempt(wildcards, attempt):
        return amount * attempt

    return at_attempt


def shard(group, n_slides):
    """Group a rule's jobs by so many neighbours of the slide sheet.

    A cluster runs the jobs of a group one after another as one job of its own, if `group-components` of the profile
    names the group. Which slides go together is fixed: Snakemake's own choice changes whenever a checkpoint ends, and
    would then submit running jobs once more.
    """

    def of_slide(wildcards):
        if group not in workflow.group_settings.group_components:
            return None
        name = f"{group}_{PLACE[wildcards.slide] // n_slides}"
        workflow.parent_groupids[name] = group  # by which Snakemake finds what the profile says of it
        return name

    return of_slide

# Reads   the slide, its record and its tissue
# Writes  results/stain/fits/{slide}.json       white point, stain basis, P99 and verdict of the slide alone
#         results/stain/reference/              the stain that all slides are matched to, and how it was chosen
#         results/stain/matches/{slide}.json    how the slide is matched to it
#         results/stain/{slide}.png             what that looks like; thumbnails/ shows the whole slide
#         results/stain/cohort.tsv, spread.json all slides side by side
#
# What reads a match also waits for the choice of the reference (ancient: it makes nothing again). Only then does
# Snakemake know that slides are to be matched anew; a job with other news would run before, on the old match.


rule fit_stain:
    """Fit one slide's stain profile on tissue pixels of the whole slide."""
    input:
        info="results/slides/info/{slide}.json",
        location=ancient("results/slides/location/{slide}.json"),
        tissue="results/tissue/{slide}.tif",
    output:
        profile="results/stain/fits/{slide}.json",
        sample="results/stain/samples/{slide}.png",
        tissue="results/stain/tissue/{slide}.png",
        overview="results/stain/overviews/{slide}.png",
    log:
        "logs/fit_stain/{slide}.log",
    benchmark:
        "results/benchmarks/fit_stain/{slide}.tsv"
    group:
        shard("prepare", 20)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(10),
    params:
        stain=stain_settings,
        code=code_digest("fit_stain"),
    script:
        "../../scripts/fit_stain.py"


checkpoint choose_reference:
    """Record the stain that every slide is matched to."""
    input:
        file=local(REFERENCE_FILE or []),
        fits=collect("results/stain/fits/{slide}.json", slide=reference_candidates),
        pictures=collect("results/stain/tissue/{slide}.png", slide=reference_candidates),
    output:
        profile="results/stain/reference/profile.json",
        picture="results/stain/reference/tissue.png",
        candidates="results/stain/reference/candidates.tsv",
    log:
        "logs/choose_reference.log",
    benchmark:
        "results/benchmarks/choose_reference.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        code=code_digest("choose_reference"),
    script:
        "../../scripts/choose_reference.py"


rule match_stain:
    """Decide how one slide is matched to the reference's stain."""
    input:
        fit="results/stain/fits/{slide}.json",
        sample="results/stain/samples/{slide}.png",
        reference=reference_profile,
        choice=ancient("results/stain/reference/profile.json"),
    output:
        "results/stain/matches/{slide}.json",
    log:
        "logs/match_stain/{slide}.log",
    benchmark:
        "results/benchmarks/match_stain/{slide}.tsv"
    group:
        shard("match", 10)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(5),
    params:
        match={key: SETTINGS.config["stain"][key] for key in ("fallback", "ratio_limits")},
        code=code_digest("match_stain"),
    script:
        "../../scripts/match_stain.py"


rule draw_stain:
    """Show how one slide is normalised; no result depends on the pictures."""
    input:
        match="results/stain/matches/{slide}.json",
        sample="results/stain/samples/{slide}.png",
        tissue="results/stain/tissue/{slide}.png",
        overview="results/stain/overviews/{slide}.png",
        reference_tissue=reference_tissue,
        choice=ancient("results/stain/reference/profile.json"),
    output:
        picture="results/stain/{slide}.png",
        thumbnails="results/stain/thumbnails/{slide}.png",
    log:
        "logs/draw_stain/{slide}.log",
    benchmark:
        "results/benchmarks/draw_stain/{slide}.tsv"
    group:
        shard("pictures", 20)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(5),
    params:
        code=code_digest("draw_stain"),
    script:
        "../../scripts/draw_stain.py"


rule compare_stains:
    """Compare the stains of all slides."""
    input:
        matches=collect("results/stain/matches/{slide}.json", slide=stained_slides),
        choice=ancient("results/stain/reference/profile.json"),
    output:
        table="results/stain/cohort.tsv",
        spread="results/stain/spread.json",
    log:
        "logs/compare_stains.log",
    benchmark:
        "results/benchmarks/compare_stains.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        code=code_digest("compare_stains"),
    script:
        "../../scripts/compare_stains.py"

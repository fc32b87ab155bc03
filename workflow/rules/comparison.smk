# Reads   the metrics of all held-out slides, the models that mapped them, and the folds
# Writes  results/experiments/table.tsv         metrics of each variant, with intervals and spreads
#         results/experiments/differences.tsv   paired differences of all pairs of variants
#         results/experiments/slides.tsv        metrics of each slide; costs.tsv: hours and memory of each variant
#         results/experiments/summary.json      the same for programs; headline.txt: in a few lines
#         results/experiments/report.html       all of it on one page, with its plots


rule compare_variants:
    """Compare all variants on the slides that their models have not seen."""
    input:
        folds=fold_table,
        metrics=collect(
            "results/experiments/variants/{variant}/seed_{seed}/metrics/slides/{slide}.json",
            variant=VARIANTS,
            seed=SEEDS,
            slide=held_out_slides,
        ),
        models=collect(
            "results/experiments/variants/{variant}/seed_{seed}/fold_{fold}/lesionmap.safetensors",
            variant=VARIANTS,
            seed=SEEDS,
            fold=FOLDS,
        ),
        ensemble=collect(
            "results/experiments/variants/{variant}/ensemble/metrics/slides/{slide}.json",
            variant=ENSEMBLES,
            slide=test_slides,
        ),
    output:
        table="results/experiments/table.tsv",
        differences="results/experiments/differences.tsv",
        slides="results/experiments/slides.tsv",
        costs="results/experiments/costs.tsv",
        summary="results/experiments/summary.json",
        headline="results/experiments/headline.txt",
    log:
        "logs/compare_variants.log",
    benchmark:
        "results/benchmarks/compare_variants.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000 + 5 * len(SLIDES)),
        runtime=grows(60),
    params:
        patients=training_patients,
        recipes={name: variant.recipe for name, variant in VARIANTS.items()},
        n_folds=N_FOLDS,
        benchmarks=with_prefix("results/benchmarks"),
        min_lesion_um=config["evaluation"]["min_lesion_um"],
        code=code_digest("compare_variants"),
    script:
        "../../scripts/compare_variants.py"


rule plot_variants:
    """Draw the variants' metrics, and their learning curves side by side."""
    input:
        summary="results/experiments/summary.json",
        histories=collect(
            "results/experiments/variants/{variant}/seed_{seed}/fold_{fold}/history.csv",
            variant=VARIANTS,
            seed=SEEDS,
            fold=FOLDS,
        ),
    output:
        metrics="results/experiments/variants.svg",
        learning_curves="results/experiments/learning_curves.svg",
    log:
        "logs/plot_variants.log",
    benchmark:
        "results/benchmarks/plot_variants.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        code=code_digest("plot_variants"),
    script:
        "../../scripts/plot_variants.py"


rule report_experiments:
    """Write the page that shows all variants side by side."""
    input:
        summary="results/experiments/summary.json",
        slides="results/experiments/slides.tsv",
        folds=fold_table,
        metrics="results/experiments/variants.svg",
        learning_curves="results/experiments/learning_curves.svg",
    output:
        "results/experiments/report.html",
    log:
        "logs/report_experiments.log",
    benchmark:
        "results/benchmarks/report_experiments.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        variants=variants_in_words,
        n_folds=N_FOLDS,
        code=code_digest("report_experiments"),
    script:
        "../../scripts/report_experiments.py"

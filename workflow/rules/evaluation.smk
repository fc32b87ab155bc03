# Reads   scores, lesion maps and annotations (of one or two readers) of the val and test slides; the model file, for what the model has seen
# Writes  results/metrics/slides/{slide}.json        one slide's agreement with the pathologist
#         results/metrics/slides.tsv          all slides
#         results/metrics/cohort.tsv          every metric of each split, with its confidence interval
#         results/metrics/groups.tsv          the same for subgroups of slides (evaluation.groups)
#         results/metrics/summary.json        the same for programs, with curves, sweep and calibration
#         results/metrics/headline.txt        the same in a few lines
#         results/metrics/readers.tsv         agreement of model and readers, where two have annotated the slides
#         results/metrics/models.tsv          this model and those of evaluation.compare on the same slides
#         results/metrics/*.svg               ROC, precision-recall, FROC, calibration, thresholds, areas, lesions by size, decision curve


rule evaluate_slide:
    """Compare one slide's lesion map with its annotation."""
    input:
        info="results/slides/info/{slide}.json",
        scores="results/lesions/{slide}/scores.ome.tif",
        lesions="results/lesions/{slide}/lesions.tif",
        tissue="results/tissue/{slide}.tif",
        annotation=ancient("results/annotations/{slide}.geojson"),
        annotation_identity="results/annotations/identity/{slide}.json",
        second=ancient(if_second_reader("results/annotations/second/{slide}.geojson")),
        second_identity=if_second_reader("results/annotations/second/identity/{slide}.json"),
    output:
        "results/metrics/slides/{slide}.json",
    log:
        "logs/evaluate_slide/{slide}.log",
    benchmark:
        "results/benchmarks/evaluate_slide/{slide}.tsv"
    group:
        shard("results", 10)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(3000),
        runtime=grows(10),
    params:
        role=slide_role,
        tolerance_um=config["evaluation"]["boundary_tolerance_um"],
        code=code_digest("evaluate_slide"),
    script:
        "../../scripts/evaluate_slide.py"


rule summarise:
    """Combine the metrics of all slides."""
    input:
        slides=collect("results/metrics/slides/{slide}.json", slide=evaluated_slides),
        stains=branch(
            STAIN in config["evaluation"]["groups"],
            then=collect("results/stain/matches/{slide}.json", slide=evaluated_slides),
            otherwise=[],
        ),
        model=model_file,
    output:
        slides=report(
            "results/metrics/slides.tsv",
            caption="../report/slides_table.rst",
            category="Tables",
            labels={"table": "metrics by slide"},
        ),
        cohort=report(
            "results/metrics/cohort.tsv",
            caption="../report/cohort_table.rst",
            category="Tables",
            labels={"table": "metrics by split"},
        ),
        summary="results/metrics/summary.json",
        headline="results/metrics/headline.txt",
        readers=report(
            "results/metrics/readers.tsv",
            caption="../report/readers_table.rst",
            category="Tables",
            labels={"table": "agreement of readers"},
        ),
        groups=report(
            "results/metrics/groups.tsv",
            caption="../report/groups_table.rst",
            category="Tables",
            labels={"table": "metrics by subgroup"},
        ),
    log:
        "logs/summarise.log",
    benchmark:
        "results/benchmarks/summarise.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(20),
    params:
        min_lesion_um=config["evaluation"]["min_lesion_um"],
        on_leakage=config["evaluation"]["on_leakage"],
        patients=training_patients,
        external=bool(config["model"]["path"]),
        groups=config["evaluation"]["groups"],
        group_columns=group_columns,
        code=code_digest("summarise"),
    script:
        "../../scripts/summarise.py"


rule plot_metrics:
    """Draw the plots of all slides together."""
    input:
        summary=once_known("results/metrics/summary.json"),
        slides=once_known("results/metrics/slides.tsv"),
    output:
        roc=report(
            "results/metrics/roc.svg",
            caption="../report/roc.rst",
            category="Agreement",
            labels={"plot": "ROC curve of pixels"},
        ),
        precision_recall=report(
            "results/metrics/precision_recall.svg",
            caption="../report/precision_recall.rst",
            category="Agreement",
            labels={"plot": "precision–recall curve of pixels"},
        ),
        froc=report(
            "results/metrics/froc.svg",
            caption="../report/froc.rst",
            category="Agreement",
            labels={"plot": "lesions found against false lesions (FROC)"},
        ),
        calibration=report(
            "results/metrics/calibration.svg",
            caption="../report/calibration.rst",
            category="Agreement",
            labels={"plot": "calibration"},
        ),
        thresholds=report(
            "results/metrics/thresholds.svg",
            caption="../report/thresholds.rst",
            category="Agreement",
            labels={"plot": "choice of the threshold"},
        ),
        areas=report(
            "results/metrics/areas.svg",
            caption="../report/areas.rst",
            category="Agreement",
            labels={"plot": "predicted and annotated area (Bland–Altman)"},
        ),
        lesion_sizes=report(
            "results/metrics/lesion_sizes.svg",
            caption="../report/lesion_sizes.rst",
            category="Agreement",
            labels={"plot": "lesions found, by size"},
        ),
        decision_curve=report(
            "results/metrics/decision_curve.svg",
            caption="../report/decision_curve.rst",
            category="Agreement",
            labels={"plot": "decision curve"},
        ),
    log:
        "logs/plot_metrics.log",
    benchmark:
        "results/benchmarks/plot_metrics.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        code=code_digest("plot_metrics"),
    script:
        "../../scripts/plot_metrics.py"


rule compare_models:
    """Compare the metrics of several models on the same slides."""
    input:
        own=collect("results/metrics/slides/{slide}.json", slide=evaluated_slides),
        slide_table=once_known("results/metrics/slides.tsv"),
        others=local(list(config["evaluation"]["compare"].values())),
    output:
        report(
            "results/metrics/models.tsv",
            caption="../report/models_table.rst",
            category="Tables",
            labels={"table": "models compared"},
        ),
    log:
        "logs/compare_models.log",
    benchmark:
        "results/benchmarks/compare_models.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(20),
    params:
        others=config["evaluation"]["compare"],
        min_lesion_um=config["evaluation"]["min_lesion_um"],
        code=code_digest("compare_models"),
    script:
        "../../scripts/compare_models.py"

# Reads   everything that the run made
# Writes  results/report/index.html    the cohort
#         results/report/stain.html    the stains of all slides side by side
#         results/report/model.html    the model's card
#         results/report/checklist.html  what the report answers of what guidelines ask; .tsv has the same
#         results/report/slides/       a page per slide
#         results/report/figures/      the pictures of all pages
#         results/report/files/, tables/  copies of small files, of each slide and of the cohort
#         results/report/viewer/       Leaflet and the other files that the slides' pages need
#         (views of slides that are not in the sheet are removed from results/report/views/)
#         results/quarantine.tsv       slides that some stage could not use: stage, finding, remedy
#         results/unreadable.tsv       parts of the other slides that could not be read
#         results/failed_exports.tsv   DICOM files and pictures that could not be made, second annotations not used
#         results/conclusion.txt       what was found, quarantine, failed exports, flags, headline metrics


rule list_quarantine:
    """List the slides that some stage could not use, and what of the others could not be read or exported."""
    input:
        records=collect("results/slides/{slide}.json", slide=SLIDES),
        tiles=collect("results/tiles/{slide}.json", slide=tiled_slides),
        maps=collect("results/lesions/{slide}/inference.json", slide=readable_slides),
        lesions=collect("results/lesions/{slide}/lesions.json", slide=readable_slides),
        metrics=collect("results/metrics/slides/{slide}.json", slide=evaluated_slides),
        dicom=collect("results/lesions/{slide}/lesions.dcm", slide=dicom_slides),
        views=collect("results/report/views/{slide}", slide=readable_slides),
        stain_pictures=collect("results/stain/{slide}.png", slide=readable_slides),
        checks=collect("results/annotations/{slide}.json", slide=annotated_slides),
        second=collect("results/annotations/second/identity/{slide}.json", slide=twice_read_slides),
    output:
        quarantine="results/quarantine.tsv",
        unreadable="results/unreadable.tsv",
        failed_exports="results/failed_exports.tsv",
    log:
        "logs/list_quarantine.log",
    benchmark:
        "results/benchmarks/list_quarantine.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(20),
    params:
        code=code_digest("list_quarantine"),
    script:
        "../../scripts/list_quarantine.py"


rule render_report:
    """Write the cohort's page and one per slide."""
    input:
        found="results/slides.tsv",
        quarantine="results/quarantine.tsv",
        failed_exports="results/failed_exports.tsv",
        summary="results/metrics/summary.json",
        slide_table="results/metrics/slides.tsv",
        readers="results/metrics/readers.tsv",
        groups="results/metrics/groups.tsv",
        metric_plots=rules.plot_metrics.output,
        models=branch(config["evaluation"]["compare"], then="results/metrics/models.tsv", otherwise=[]),
        before_after=branch(
            Path(with_prefix("results/review/before")).is_dir(),
            then=["results/metrics/before_after.tsv", "results/metrics/before_after.json"],
            otherwise=[],
        ),
        model=model_file,
        history=branch(config["model"]["path"], then=[], otherwise="results/model/history.csv"),
        learning_curves=branch(config["model"]["path"], then=[], otherwise="results/model/learning_curves.svg"),
        records=collect("results/slides/{slide}.json", slide=readable_slides),
        checks=collect("results/annotations/{slide}.json", slide=annotated_slides),
        stains=collect("results/stain/matches/{slide}.json", slide=readable_slides),
        stain_pictures=collect("results/stain/{slide}.png", slide=readable_slides),
        stain_thumbnails=collect("results/stain/thumbnails/{slide}.png", slide=readable_slides),
        stain_spread="results/stain/spread.json",
        outlines=collect("results/lesions/{slide}/lesions.geojson", slide=readable_slides),
        lesion_tables=collect("results/lesions/{slide}/lesions.tsv", slide=readable_slides),
        metrics=collect("results/metrics/slides/{slide}.json", slide=evaluated_slides),
        tables=report_tables,
        overlays=collect("results/lesions/{slide}/overlay.png", slide=readable_slides),
        views=collect("results/report/views/{slide}", slide=readable_slides),
    output:
        index="results/report/index.html",
        stain="results/report/stain.html",
        model="results/report/model.html",
        checklist="results/report/checklist.html",
        checklist_table="results/report/checklist.tsv",
        script="results/report/report.js",
        pages=directory("results/report/slides"),
        figures=report(
            directory("results/report/figures"),
            patterns=["{slide}_{picture,overlay|stain}.{format,png|jpg}"],
            caption="../report/slide_picture.rst",
            category="Lesion maps and stain",
            labels={"slide": "{slide}", "picture": "{picture}"},
        ),
        viewer=directory("results/report/viewer"),
        files=directory("results/report/files"),
        tables=directory("results/report/tables"),
    log:
        "logs/render_report.log",
    benchmark:
        "results/benchmarks/render_report.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        slides=list(SLIDES),
        config=SETTINGS.config,
        model_notes=SETTINGS.notes,
        map_mpp=inference_mpp(SETTINGS.config),
        benchmarks=with_prefix("results/benchmarks"),
        code=code_digest("render_report"),
    script:
        "../../scripts/render_report.py"


rule conclude:
    """Say what was found, which slides are in quarantine and what could not be exported; end as on_quarantine says."""
    input:
        slides="results/slides.tsv",
        headline="results/metrics/headline.txt",
        quarantine="results/quarantine.tsv",
        failed_exports="results/failed_exports.tsv",
        checks=collect("results/annotations/{slide}.json", slide=annotated_slides),
        report="results/report/index.html",
    output:
        "results/conclusion.txt",
    log:
        "logs/conclude.log",
    benchmark:
        "results/benchmarks/conclude.tsv"
    # It fails by design if on_quarantine says so.
    retries: 0
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(5),
    params:
        fail=config["on_quarantine"] == "fail_at_end",
        model_notes=SETTINGS.notes,
        code=code_digest("conclude"),
    script:
        "../../scripts/conclude.py"

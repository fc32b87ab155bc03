# Reads   the slide, its record, stain match and tissue, its lesion maps and, where it has one, its annotation
# Writes  results/report/views/{slide}/   its deep-zoom view, shown on its page of the report
#         …/slide/                        tiles of the slide: <zoom>/<column>_<row>.js
#         …/probability/                  tiles of the lesion probability × 255: <zoom>/<column>_<row>.js
#         …/view.js                       sizes, outlines, and which tiles there are
#         results/lesions/{slide}/overlay.png   the whole slide under its lesion map, one picture


rule cut_view:
    """Show one slide and its lesion map, as the tiles of a deep-zoom view and as one picture."""
    input:
        info="results/slides/info/{slide}.json",
        location=ancient("results/slides/location/{slide}.json"),
        stain="results/stain/matches/{slide}.json",
        choice=ancient("results/stain/reference/profile.json"),
        tissue="results/tissue/{slide}.tif",
        probability="results/lesions/{slide}/probability.ome.tif",
        lesions="results/lesions/{slide}/lesions.tif",
        outlines="results/lesions/{slide}/lesions.geojson",
        annotation=ancient(if_annotated("results/annotations/{slide}.geojson")),
        # By its SHA-256 a change is noticed.
        annotation_identity=if_annotated("results/annotations/identity/{slide}.json"),
    output:
        view=directory("results/report/views/{slide}"),
        overlay="results/lesions/{slide}/overlay.png",
    log:
        "logs/cut_view/{slide}.log",
    benchmark:
        "results/benchmarks/cut_view/{slide}.tsv"
    group:
        shard("views", 1 if config["report"]["detail"] == "all" else 5)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 2
    resources:
        mem_mb=grows(2000),
        runtime=grows(120 if config["report"]["detail"] == "all" else 60),
    params:
        detail=config["report"]["detail"],
        code=code_digest("cut_view"),
    script:
        "../../scripts/cut_view.py"

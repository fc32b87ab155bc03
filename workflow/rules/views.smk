# Reads   the slide, its record and tissue, its lesion map and, where it has one, its annotation
# Writes  results/report/views/{slide}/   its deep-zoom view, which its page of the report shows
#         …/slide/                        tiles of the slide: <zoom>/<column>_<row>.jpg
#         …/probability/                  tiles of the lesion probability × 255: <zoom>/<column>_<row>.png
#         …/view.js                       sizes, outlines, and which tiles there are


rule cut_view:
    """Cut one slide and its lesion map into the tiles of a deep-zoom view."""
    input:
        info="results/slides/{slide}.json",
        tissue="results/tissue/{slide}.tif",
        probability="results/lesions/{slide}/probability.ome.tif",
        outlines="results/lesions/{slide}/lesions.geojson",
        annotation=shown_annotation,
    output:
        directory("results/report/views/{slide}"),
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

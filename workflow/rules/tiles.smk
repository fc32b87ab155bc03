# Reads   the slide, its record, tissue, annotation and stain
# Writes  results/tiles/{slide}.h5   normalised regions and tiles with their masks (config/README.md)


rule extract_tiles:
    """Cut one annotated slide into normalised regions and tiles."""
    input:
        slide=ancient(slide_file),
        info="results/slides/{slide}.json",
        tissue="results/tissue/{slide}.tif",
        annotation="results/annotations/{slide}.geojson",
        stain="results/stain/{slide}.json",
    output:
        "results/tiles/{slide}.h5",
    log:
        "logs/extract_tiles/{slide}.log",
    benchmark:
        "results/benchmarks/extract_tiles/{slide}.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 2
    resources:
        mem_mb=3000,
        runtime=120,
    params:
        max_unreadable_fraction=config["slides"]["max_unreadable_fraction"],
        tiles=config["tiles"],
        code=code_digest("extract_tiles"),
    script:
        "../../scripts/extract_tiles.py"

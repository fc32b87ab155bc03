# Reads   the slide, its record, tissue, annotation and stain
# Writes  results/tiles/{slide}.h5     normalised regions and tiles with their masks (config/README.md)
#         results/tiles/{slide}.json   what that holds
#         results/tiles/summary.tsv    the same of all slides, with seconds


rule extract_tiles:
    """Cut one annotated slide into normalised regions and tiles."""
    input:
        info="results/slides/info/{slide}.json",
        location=ancient("results/slides/location/{slide}.json"),
        tissue="results/tissue/{slide}.tif",
        annotation=ancient("results/annotations/{slide}.geojson"),
        annotation_identity="results/annotations/identity/{slide}.json",
        stain="results/stain/matches/{slide}.json",
        choice=ancient("results/stain/reference/profile.json"),
    output:
        store=temp("results/tiles/{slide}.h5") if config["tiles"]["store"] == "temp" else "results/tiles/{slide}.h5",
        record="results/tiles/{slide}.json",
    log:
        "logs/extract_tiles/{slide}.log",
    benchmark:
        "results/benchmarks/extract_tiles/{slide}.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 2
    resources:
        mem_mb=grows(2000),
        runtime=grows(120),
    params:
        max_unreadable_fraction=config["slides"]["max_unreadable_fraction"],
        tiles=tile_settings(config),
        code=code_digest("extract_tiles"),
    script:
        "../../scripts/extract_tiles.py"


rule summarise_tiles:
    """Tabulate what the stores of all slides hold."""
    input:
        collect("results/tiles/{slide}.json", slide=tiled_slides),
    output:
        "results/tiles/summary.tsv",
    log:
        "logs/summarise_tiles.log",
    benchmark:
        "results/benchmarks/summarise_tiles.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(20),
    params:
        benchmarks=with_prefix("results/benchmarks/extract_tiles"),
        code=code_digest("summarise_tiles"),
    script:
        "../../scripts/summarise_tiles.py"

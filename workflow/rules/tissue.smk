# Reads   the slide and its record
# Writes  results/tissue/{slide}.tif   255 tissue, 191 folded tissue, 64 ink, 0 background


rule find_tissue:
    """Find where on one slide there is tissue."""
    input:
        info="results/slides/info/{slide}.json",
        location=ancient("results/slides/location/{slide}.json"),
    output:
        "results/tissue/{slide}.tif",
    log:
        "logs/find_tissue/{slide}.log",
    benchmark:
        "results/benchmarks/find_tissue/{slide}.tsv"
    group:
        shard("prepare", 20)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(3000),
        runtime=grows(10),
    params:
        tissue=SETTINGS.config["tissue"],
        code=code_digest("find_tissue"),
    script:
        "../../scripts/find_tissue.py"

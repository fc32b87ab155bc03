# Reads   the slide, its record and its tissue
# Writes  results/stain/{slide}.json   stain basis and P99
#         results/stain/{slide}.png    a piece of tissue, and the same rebuilt from its two stains


rule fit_stain:
    """Fit one slide's stain profile on tissue pixels of the whole slide."""
    input:
        slide=ancient(slide_file),
        info="results/slides/{slide}.json",
        tissue="results/tissue/{slide}.tif",
    output:
        profile="results/stain/{slide}.json",
        picture="results/stain/{slide}.png",
    log:
        "logs/fit_stain/{slide}.log",
    benchmark:
        "results/benchmarks/fit_stain/{slide}.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        stain={key: config["stain"][key] for key in ("method", "n_pixels", "seed")},
        code=code_digest("fit_stain"),
    script:
        "../../scripts/fit_stain.py"

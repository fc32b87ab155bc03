# Reads   the slide, its record, tissue and stain, and the model
# Writes  results/lesions/{slide}/probability.ome.tif   lesion probability × 255, pyramid
#         results/lesions/{slide}/scores.ome.tif        the same in steps of the logit, which later stages compute with
#         results/lesions/{slide}/inference.json        how the map was made: tiles, what was unreadable, seams


rule map_slide:
    """Map the lesion probability of one slide; the only rule that runs the network."""
    input:
        info="results/slides/info/{slide}.json",
        location=ancient("results/slides/location/{slide}.json"),
        tissue="results/tissue/{slide}.tif",
        stain="results/stain/matches/{slide}.json",
        choice=ancient("results/stain/reference/profile.json"),
        model=model_file,
        onnx="results/model/lesionmap.onnx",
        check="results/model/engine_check.json",
    output:
        probability="results/lesions/{slide}/probability.ome.tif",
        scores="results/lesions/{slide}/scores.ome.tif",
        record="results/lesions/{slide}/inference.json",
    log:
        "logs/map_slide/{slide}.log",
    benchmark:
        "results/benchmarks/map_slide/{slide}.tsv"
    group:
        shard("infer", 5 if SETTINGS.config["inference"]["refine"] == "none" else 1)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(60 if SETTINGS.config["inference"]["refine"] == "none" else 1440),
        gpu=1,
    params:
        max_unreadable_fraction=config["slides"]["max_unreadable_fraction"],
        map=map_settings(SETTINGS.config),
        code=code_digest("map_slide"),
    script:
        "../../scripts/map_slide.py"

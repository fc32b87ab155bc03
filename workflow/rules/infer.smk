# Reads   the slide, its record, tissue and stain, and the model
# Writes  results/lesions/{slide}/probability.ome.tif   lesion probability × 255, pyramid
#         results/lesions/{slide}/lesions.tif           255 lesion, pyramid
#         results/lesions/{slide}/lesions.geojson       outlines for QuPath
#         results/lesions/{slide}/lesions.tsv           a row per lesion
#         results/lesions/{slide}/overlay.png           a picture of all on the slide
#         results/lesions/{slide}/inference.json        how the map was made: tiles, what was unreadable, seams
#         results/lesions/{slide}/lesions.dcm           DICOM Segmentation, of the slides that exports.dicom says


rule infer_slide:
    """Map the lesions of one slide."""
    input:
        info="results/slides/{slide}.json",
        tissue="results/tissue/{slide}.tif",
        stain="results/stain/{slide}.json",
        model=model_file,
    output:
        probability="results/lesions/{slide}/probability.ome.tif",
        lesions="results/lesions/{slide}/lesions.tif",
        outlines="results/lesions/{slide}/lesions.geojson",
        table="results/lesions/{slide}/lesions.tsv",
        overlay="results/lesions/{slide}/overlay.png",
        record="results/lesions/{slide}/inference.json",
    log:
        "logs/infer_slide/{slide}.log",
    benchmark:
        "results/benchmarks/infer_slide/{slide}.tsv"
    group:
        shard("infer", 5 if config["inference"]["refine"] == "none" else 1)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(60 if config["inference"]["refine"] == "none" else 1440),
        gpu=1,
    params:
        max_unreadable_fraction=config["slides"]["max_unreadable_fraction"],
        inference=inference_settings(config),
        code=code_digest("infer_slide"),
    script:
        "../../scripts/infer_slide.py"


rule write_dicom:
    """Write the lesions of one slide as a DICOM Segmentation."""
    input:
        info="results/slides/{slide}.json",
        lesions="results/lesions/{slide}/lesions.tif",
    output:
        "results/lesions/{slide}/lesions.dcm",
    log:
        "logs/write_dicom/{slide}.log",
    benchmark:
        "results/benchmarks/write_dicom/{slide}.tsv"
    group:
        shard("results", 10)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(3000),
        runtime=grows(10),
    params:
        code=code_digest("write_dicom"),
    script:
        "../../scripts/write_dicom.py"

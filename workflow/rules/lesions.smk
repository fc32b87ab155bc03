# Reads   the scores of the slide's probability map, its tissue and, where it has one, its annotation
# Writes  results/lesions/{slide}/lesions.tif       255 lesion, pyramid
#         results/lesions/{slide}/lesions.geojson   outlines for QuPath, each with its verdict against the annotation
#         results/lesions/{slide}/lesions.tsv       a row per lesion
#         results/lesions/{slide}/lesions.json      threshold, number and areas of the lesions
#         results/lesions/{slide}/lesions.dcm       DICOM Segmentation, for the slides that exports.dicom selects


rule find_lesions:
    """Find the lesions of one slide in its probability map."""
    input:
        info="results/slides/info/{slide}.json",
        tissue="results/tissue/{slide}.tif",
        scores="results/lesions/{slide}/scores.ome.tif",
        # For the verdicts on the lesions; by its SHA-256 a change is noticed.
        annotation=ancient(if_annotated("results/annotations/{slide}.geojson")),
        annotation_identity=if_annotated("results/annotations/identity/{slide}.json"),
    output:
        lesions="results/lesions/{slide}/lesions.tif",
        outlines="results/lesions/{slide}/lesions.geojson",
        table="results/lesions/{slide}/lesions.tsv",
        record="results/lesions/{slide}/lesions.json",
    log:
        "logs/find_lesions/{slide}.log",
    benchmark:
        "results/benchmarks/find_lesions/{slide}.tsv"
    group:
        shard("views", 1 if config["report"]["detail"] == "all" else 5)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(3000),
        runtime=grows(10),
    params:
        lesions=lesion_settings(config),
        code=code_digest("find_lesions"),
    script:
        "../../scripts/find_lesions.py"


rule write_dicom:
    """Write the lesions of one slide as a DICOM Segmentation."""
    input:
        info="results/slides/info/{slide}.json",
        location=ancient("results/slides/location/{slide}.json"),
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

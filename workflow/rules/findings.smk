# Reads   the records, lesions and checks of all slides, their metrics, and what could not be read or made
# Writes  results/lesions.tsv             a row for each predicted lesion of all slides
#         results/annotated_lesions.tsv   a row for each annotated lesion: found or missed
#         results/slides.tsv              a row for each slide of the sheet, evaluated or not: what was found, and flags


rule list_findings:
    """List what was found: lesions and slides."""
    input:
        records=collect("results/slides/{slide}.json", slide=SLIDES),
        lesions=collect("results/lesions/{slide}/lesions.json", slide=readable_slides),
        tables=collect("results/lesions/{slide}/lesions.tsv", slide=readable_slides),
        maps=collect("results/lesions/{slide}/inference.json", slide=readable_slides),
        stains=collect("results/stain/matches/{slide}.json", slide=readable_slides),
        checks=collect("results/annotations/{slide}.json", slide=annotated_slides),
        metrics=once_known("results/metrics/slides.tsv"),
        stain_table="results/stain/cohort.tsv",
        unreadable="results/unreadable.tsv",
        failed_exports="results/failed_exports.tsv",
    output:
        lesions=report(
            "results/lesions.tsv",
            caption="../report/lesions_table.rst",
            category="Tables",
            labels={"table": "lesions"},
        ),
        annotated=report(
            "results/annotated_lesions.tsv",
            caption="../report/annotated_table.rst",
            category="Tables",
            labels={"table": "annotated lesions"},
        ),
        slides=report(
            "results/slides.tsv",
            caption="../report/findings_table.rst",
            category="Tables",
            labels={"table": "slides"},
        ),
    log:
        "logs/list_findings.log",
    benchmark:
        "results/benchmarks/list_findings.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(20),
    params:
        patients=sheet_patients,
        code=code_digest("list_findings"),
    script:
        "../../scripts/list_findings.py"

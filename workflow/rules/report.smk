# Reads   everything that the run made
# Writes  results/report/index.html    the cohort, and a page per slide
#         results/conclusion.txt       slides in quarantine


rule conclude:
    """Show which slides are in quarantine, and end the run as on_quarantine says."""
    input:
        quarantine="results/quarantine.tsv",
        report="results/report/index.html",
    output:
        "results/conclusion.txt",
    log:
        "logs/conclude.log",
    benchmark:
        "results/benchmarks/conclude.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        fail=config["on_quarantine"] == "fail_at_end",
        code=code_digest("conclude"),
    script:
        "../../scripts/conclude.py"

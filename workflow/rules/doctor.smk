# Reads   the slide sheet, the head of every slide, and the annotations
# Writes  results/doctor.tsv    a row per slide: verdict, findings, predicted regions and tiles
#         results/doctor.json   the same, the sheet's own problems, and the costs of a run
#         results/machine_costs.json   what a tile takes in the network on this machine


rule doctor:
    """Say what is wrong with the sheet and what a run will cost; run `snakemake doctor` before the first run."""
    log:
        "logs/doctor.log",
    retries: 0
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 8
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        # No outputs: Snakemake removes those of a failed job, but this one must keep its tables when it fails.
        table=with_prefix("results/doctor.tsv"),
        report=with_prefix("results/doctor.json"),
        machine=with_prefix("results/machine_costs.json"),
        rows=sheet_rows,
        config=SETTINGS.config,
        model_notes=SETTINGS.notes,
    script:
        "../../scripts/doctor.py"

# What a job on a cluster makes of the workflow; it reads config, sheet and rules anew.


# Where there are checkpoints Snakemake plans all that its job's inputs are made from, down to the sheet. The job was sent
# because its inputs are there, so it need not know of any rule but its own: that took a minute and 1 GB of each job.
if not workflow.is_main_process:
    for rule_ in workflow.rules:
        rule_.is_checkpoint = False

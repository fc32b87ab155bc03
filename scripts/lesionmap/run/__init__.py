"""The whole run, before its first job and after its last.

- ``config``: the config, checked once, and what each stage is told of it
- ``settings``: what the pre-flight and the costs need to know of a config
- ``start_checks``: what is looked at before the first job
- ``doctor``: the pre-flight: what is wrong with a sheet, and what a run will cost
- ``manifest``: the table of readable slides
- ``quarantine_tables``: the slides that some stage could not use, and parts that could not be read
- ``conclusion``: how a run ends, and its exit status
"""

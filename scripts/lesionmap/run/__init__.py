"""Checks and tables of the whole run, before its first job and after its last.

- ``config``: check the config, and select the settings of each stage
- ``model_settings``: the settings that a model brings with it
- ``settings``: the whole config as settings classes, for the pre-flight check and the cost estimate
- ``start_checks``: checks before the first job
- ``doctor``: the pre-flight check: problems of a slide sheet, and the costs of a run
- ``new_slides``: add a folder's new slides to a sheet
- ``prune``: what there is of slides that are not in the sheet
- ``manifest``: the table of readable slides
- ``published_model``: the model of the last finished training, put where the rest of the run reads it
- ``quarantine_tables``: the slides that a stage could not use, and unreadable parts of the others
- ``conclusion``: how a run ends, and its exit status
"""

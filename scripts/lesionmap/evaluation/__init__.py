"""Compare lesion maps with annotations: files of metrics, tables and plots (docs/metrics.md).

- ``evaluate``: one slide
- ``groups``: values of subgroups
- ``leakage``: which slides the model has seen, and what kind of validation that makes
- ``summary``: all evaluated slides together
- ``findings``: what was found, a row for each lesion and slide
- ``findings_in_words``: the same in a few lines
- ``model_comparison``: several models on the same slides
- ``plots``: ROC, FROC and the other plots
"""

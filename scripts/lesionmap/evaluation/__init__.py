"""Compare lesion maps with annotations: files of metrics, tables and plots (docs/metrics.md).

- ``evaluate``: one slide
- ``groups``: values of subgroups
- ``leakage``: which slides the model has seen, and what kind of validation that makes
- ``summary``: all evaluated slides together
- ``findings``, ``findings_in_words``: what was found, for each lesion and slide
- ``model_comparison``: several models on the same slides
- ``plots``: ROC, FROC and the other plots
"""

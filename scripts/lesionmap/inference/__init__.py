"""Inference: the probability map of a whole slide (METHOD.md §5).

- ``map_slide``: map one slide and record how
- ``settings``: the settings of a probability map
"""

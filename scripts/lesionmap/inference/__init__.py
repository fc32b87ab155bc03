"""Inference: the probability map of a whole slide (METHOD.md §5).

- ``map_slide``: map one slide, by one model or several, and record how
- ``engines``: what runs the network, chosen by the machine
- ``recalibration``: probabilities brought to what was observed on validation slides
- ``settings``: the settings of a probability map
"""

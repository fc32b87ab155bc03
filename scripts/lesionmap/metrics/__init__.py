"""Metrics as pure arithmetic, without file access (docs/metrics.md).

- ``pixels``: pixel metrics from histograms
- ``calibration``: logistic recalibration and net benefit
- ``lesions``: annotated and predicted lesions, matched as in CAMELYON16
- ``verdicts``: which lesions are true, false, found and missed, by the pixels they share
- ``lesion_sizes``: lesions by their diameter
- ``froc``: the FROC curve
- ``boundaries``: distances between the boundaries of two masks
- ``pairs``: model and readers that are compared with each other
- ``readers``: agreement of these pairs in a cohort, with confidence intervals
- ``slide_table``: what metrics of a cohort are computed from, and weighted sums of it
- ``cohort``: metrics of a cohort with confidence intervals
- ``intervals``: confidence intervals from a jackknife over patients
"""

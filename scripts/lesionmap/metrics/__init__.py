"""Metrics as pure arithmetic, without file access (docs/metrics.md).

- ``pixels``: pixel metrics from histograms
- ``calibration``: logistic recalibration and net benefit
- ``lesions``: annotated and predicted lesions, matched as in CAMELYON16
- ``froc``: the FROC curve
- ``cohort``: metrics of a cohort with confidence intervals
- ``intervals``: confidence intervals from a jackknife over patients
"""

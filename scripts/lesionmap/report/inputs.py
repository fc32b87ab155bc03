"""The files that the report is made from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

from lesionmap.jobs.quarantine import quarantined


@dataclass(frozen=True)
class ReportInputs:
    """The files that the report is made from; files of slides are in the sheet's order, one per readable slide.

    Parameters
    ----------
    found : str
        Table of slides of :func:`lesionmap.evaluation.findings.list_findings`.
    quarantine : str
        Table of :func:`lesionmap.run.quarantine_tables.list_quarantine`.
    failed_exports : str
        Another table of that function.
    summary, slide_table, readers : str
        Files of :func:`lesionmap.evaluation.summary.summarise`.
    groups : str
        Another file of that function.
    metric_plots : sequence of str
        Files of :func:`lesionmap.evaluation.plots.plot_metrics`.
    models : str or None
        File of :func:`lesionmap.evaluation.model_comparison.compare_models`; None if no other model is compared.
    stain_spread : str
        A file of :func:`lesionmap.stain.comparison.compare_stains`.
    model : str
        The model file in use.
    history, learning_curves : str or None
        Training history, and the file of :func:`lesionmap.training.learning_curves.plot_learning_curves`; None if an
        existing model was used.
    records : sequence of str
        Files of :func:`lesionmap.slides.inspection.inspect_slide`.
    checks : sequence of str
        Files of :func:`lesionmap.annotations.placement.check_annotation`, one per annotated slide.
    stains : sequence of str
        Files of :func:`lesionmap.stain.match.match_slide`.
    stain_pictures, stain_thumbnails : sequence of str
        Files of :func:`lesionmap.stain.plots.draw_stain`.
    outlines, lesion_tables : sequence of str
        Files of :func:`lesionmap.lesions.find_lesions.find_lesions`.
    metrics : sequence of str
        Files of :func:`lesionmap.evaluation.evaluate.evaluate_slide`, one per evaluated slide.
    tables : sequence of str
        Other small files of the cohort, which the report's folder holds copies of.
    views, overlays : sequence of str
        Folders and pictures of :func:`lesionmap.viewer.view.cut_view`. The folders lie in ``views``, next to
        the folder of the pages.
    before_after : sequence of str
        Table and counts of :func:`lesionmap.evaluation.model_comparison.compare_with_before`; empty before the first
        review.
    """

    found: str
    quarantine: str
    failed_exports: str
    summary: str
    slide_table: str
    readers: str
    groups: str
    metric_plots: Sequence[str]
    models: str | None
    stain_spread: str
    model: str
    history: str | None
    learning_curves: str | None
    records: Sequence[str]
    checks: Sequence[str]
    stains: Sequence[str]
    stain_pictures: Sequence[str]
    stain_thumbnails: Sequence[str]
    outlines: Sequence[str]
    lesion_tables: Sequence[str]
    metrics: Sequence[str]
    tables: Sequence[str]
    overlays: Sequence[str]
    views: Sequence[str]
    before_after: Sequence[str] = ()


def without_quarantined(inputs: ReportInputs) -> ReportInputs:
    """`inputs` without slides that have no lesion map because a stage after the inspection refused them."""
    mapped = [not quarantined(path) for path in inputs.outlines]
    return replace(
        inputs,
        records=list(compress(inputs.records, mapped)),
        stains=list(compress(inputs.stains, mapped)),
        stain_pictures=list(compress(inputs.stain_pictures, mapped)),
        stain_thumbnails=list(compress(inputs.stain_thumbnails, mapped)),
        outlines=list(compress(inputs.outlines, mapped)),
        lesion_tables=list(compress(inputs.lesion_tables, mapped)),
        overlays=list(compress(inputs.overlays, mapped)),
        views=list(compress(inputs.views, mapped)),
    )

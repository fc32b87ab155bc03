# What is looked at before the first job of a run.

from lesionmap.run import start_checks as dates
from lesionmap.errors import StorageError
from lesionmap.run.start_checks import check_writable


def check_start():
    """Refuse to start where jobs would fail after their work: results that are read-only, dates in the future."""
    try:
        check_writable("results")
        dates.check_annotations(row.annotation for row in SLIDES.values() if row.annotation)
        if not workflow.touch:  # which dates results anew
            dates.check_results("results", leave_out=("benchmarks", "views"))
    except StorageError as error:
        raise WorkflowError(f"LesionMap: {error}")

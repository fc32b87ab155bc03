import pytest
from lesionmap.errors import SlideError
from lesionmap.jobs.log import job_log


def test_a_users_error_is_one_line_without_traceback(tmp_path):
    log = tmp_path / "job.log"
    with pytest.raises(SystemExit) as raised, job_log(str(log)):
        raise SlideError(slide="s1", stage="fit_stain", finding="it is blue", remedy="look at it")
    assert str(raised.value) == "LesionMap: slide s1, fit_stain: it is blue. Remedy: look at it."

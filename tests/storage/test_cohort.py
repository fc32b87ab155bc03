"""A cohort whose slides are on an S3-compatible server and a web server, through the whole workflow."""

import shutil
import threading
import time

import pandas as pd
import pytest
from project import jobs
from servers import BUCKET


class Watch:
    """The most bytes that copies take while it runs."""

    def __init__(self, folder) -> None:
        self.folder, self.most, self.ended = folder, 0, threading.Event()
        self.thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.ended.wait(0.02):
            self.most = max(self.most, taken(self.folder))


def differing(some, others):
    """Names of results that are not the same in both."""
    return {name for name in some.keys() | others.keys() if some.get(name) != others.get(name)}


def taken(folder):
    try:
        return sum(path.stat().st_size for path in folder.rglob("*.tif"))
    except FileNotFoundError:  # one that is just being removed
        return 0


@pytest.fixture(scope="module")
def watched(fetched, store):
    """The first run; the most that copies took."""
    with Watch(fetched.folder / "slide_copies") as watch:
        fetched.run()
    return watch.most


def test_results_are_those_of_slides_at_hand(fetched, local, watched):
    ours, theirs = fetched.results(), local.results()
    kinds = ("lesions/", "tiles/", "model/", "stain/", "tissue/", "metrics/", "annotations/")
    compared = [name for name in theirs if name.startswith(kinds)]
    assert len(compared) > 40
    assert [name for name in compared if ours.get(name) != theirs[name]] == []


def test_copies_stay_within_their_bound(fetched, watched):
    bound = fetched.config["slides"]["copies"]["most_gb"] * 1e9
    assert 0.5 * bound < watched <= bound
    assert taken(fetched.folder / "slide_copies") <= bound


def test_a_slide_that_is_not_to_be_had_costs_the_others_nothing(fetched, watched):
    table = pd.read_csv(fetched.folder / "results/quarantine.tsv", sep="\t").set_index("slide")
    assert set(table.index) == {"unreadable", "gone", "secret", "led"}
    assert table.loc["gone", "finding"] == f"s3://{BUCKET}/gone.tif is not there (404)"
    assert table.loc["secret", "finding"].endswith("/refused/secret.tif is refused (403)")
    assert table.loc["unreadable", "finding"].startswith(f"s3://{BUCKET}/2026/case 1/unreadable.tif is cut short")
    assert "access granted" in table.loc["secret", "remedy"]
    assert (
        "led.tif leads to http://other.example/led.tif, which is not in slides.roots (" in table.loc["led", "finding"]
    )
    assert "add that address, its folder or its server to slides.roots" in table.loc["led", "remedy"]


def test_keys_are_nowhere_in_results_logs_and_what_snakemake_keeps(fetched, watched):
    kept = [path for path in fetched.folder.rglob("*") if path.is_file()]
    assert {"results", "logs", ".snakemake"} <= {path.relative_to(fetched.folder).parts[0] for path in kept}
    assert [path for path in kept if b"not-to-be-told" in path.read_bytes()] == []


def test_a_second_run_asks_but_fetches_nothing(fetched, watched, store):
    store.forget()
    assert "Nothing to be done" in fetched.run()
    assert store.downloads() == set()
    assert len(store.asked) <= 2 * 6


def test_only_the_slide_of_a_changed_row_is_fetched(fetched, watched, store):
    sheet = (fetched.folder / "slides.tsv").read_text()
    shutil.rmtree(fetched.folder / "slide_copies")  # as may be done while nothing runs
    store.forget()
    (fetched.folder / "slides.tsv").write_text(sheet.replace("gone.tif", "2026/case 1/test_1.tif"))
    printed = fetched.run()
    assert "inspect_slide:gone" in jobs(printed)
    assert store.downloads() == {"test_1"}
    (fetched.folder / "slides.tsv").write_text(sheet)


def test_a_slide_that_changes_on_the_server_is_noticed_and_it_alone_is_fetched(fetched, watched, store, local):
    fetched.run()
    content = (local.folder / "slides/test_1.tif").read_bytes()
    store.s3.put_object(Bucket=BUCKET, Key="2026/case 1/test_1.tif", Body=content + b"0")
    store.forget()
    planned = fetched.planned()
    assert "inspect_slide:test_1" in planned
    assert "inspect_slide:train_1" not in planned
    fetched.run()
    assert store.downloads() == {"test_1"}


def test_a_transfer_that_breaks_off_costs_the_others_nothing_and_leaves_nothing(fetched, watched, store):
    fetched.run()
    before, sheet = fetched.results(), (fetched.folder / "slides.tsv").read_text()
    address = f"{store.web.address}/cut/a.tif"
    (store.web.folder / "cut").mkdir()
    shutil.copy(store.web.folder / "train_2.tif", store.web.folder / "cut/a.tif")
    (fetched.folder / "slides.tsv").write_text(sheet.replace(f"s3://{BUCKET}/gone.tif", address))
    printed = fetched.run(ok=False)
    assert jobs(printed) == {"inspect_slide:gone"}
    assert f"{address} cannot be fetched" in printed
    assert "cut/a.tif cannot be fetched" in (fetched.folder / "logs/inspect_slide/gone.log").read_text()
    table = pd.read_csv(fetched.folder / "results/quarantine.tsv", sep="\t")
    assert list(table["slide"]) == [
        "unreadable",
        "secret",
        "led",
    ]  # that of a run that stops: what is known of other slides
    missing = {f"slides/{part}gone.json" for part in ("", "info/", "location/")}
    assert differing(fetched.results(), before) == {*missing, "quarantine.tsv"}
    assert list((fetched.folder / "slide_copies").rglob("a.tif")) == []
    (fetched.folder / "slides.tsv").write_text(sheet)
    fetched.run()
    assert differing(fetched.results(), before) <= {"report/index.html"}  # which says how long each stage took


def test_keys_that_expire_while_a_run_goes_on_quarantine_no_slide(fetched, watched, store):
    before = fetched.results()
    job = ("--target-jobs", "inspect_slide:slide=train_2", "--allowed-rules", "inspect_slide")
    store.web.closed = True
    try:  # as executors for clusters call a job's own Snakemake
        printed = fetched.run(*job, "--force", "--mode", "remote", "--nolock", ok=False)
    finally:
        store.web.closed = False
    assert "refuses every request" in printed
    assert fetched.results() == before


def test_a_server_that_is_away_stops_the_run_and_changes_nothing(fetched, watched, monkeypatch):
    before = fetched.results()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    start = time.monotonic()
    printed = fetched.run(ok=False)
    assert time.monotonic() - start < 60
    assert "cannot be fetched (EndpointConnectionError" in printed
    assert f"Remedy: see that {BUCKET} can be reached" in printed
    assert f"Remedy: see that {BUCKET} can be reached" in fetched.run("doctor", ok=False)
    assert fetched.results() == before

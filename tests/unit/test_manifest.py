import pytest
from lesionmap.errors import LesionMapError, SettingsError
from lesionmap.files import write_json
from lesionmap.manifest import build_manifest, conclude, good_slides

INFO = {"vendor": "aperio", "mpp": 0.25, "identity": "f" * 64, "size_lv0": [30, 20]}


@pytest.fixture
def records(tmp_path):
    good = {"verdict": "ok", "info": INFO}
    bad = {"verdict": "quarantined", "stage": "inspect_slide", "finding": "it is empty", "remedy": "copy it again"}
    slides = {"NA": {"split": "train"} | good, "b": {"split": "test"} | good, "c": {"split": "train"} | bad}
    for slide, record in slides.items():
        write_json(tmp_path / f"{slide}.json", {"slide": slide} | record)
    return [str(tmp_path / f"{slide}.json") for slide in slides]


def test_the_cohort_is_parted(tmp_path, records):
    manifest, quarantine = tmp_path / "m.tsv", tmp_path / "q.tsv"
    build_manifest(records, str(manifest), str(quarantine), reference="b")
    assert good_slides(str(manifest), ["train", "val"]) == ["NA"]
    assert good_slides(str(manifest), ["test"]) == ["b"]
    assert quarantine.read_text().splitlines()[1] == "c\ttrain\tinspect_slide\tit is empty\tcopy it again"


def test_a_reference_in_quarantine_is_refused(tmp_path, records):
    with pytest.raises(SettingsError, match="the stain reference 'c' is in quarantine: it is empty"):
        build_manifest(records, str(tmp_path / "m.tsv"), str(tmp_path / "q.tsv"), reference="c")


@pytest.mark.parametrize("fail", [False, True])
def test_the_end_follows_the_policy(tmp_path, records, fail, capsys):
    build_manifest(records, str(tmp_path / "m.tsv"), str(tmp_path / "q.tsv"), reference=None)
    (tmp_path / "headline.txt").write_text("Dice 0.9\n")
    arguments = (str(tmp_path / "headline.txt"), str(tmp_path / "q.tsv"), str(tmp_path / "end.txt"))
    if fail:
        with pytest.raises(LesionMapError, match="everything else is done, but 1 slides are in quarantine"):
            conclude(*arguments, fail=True)
    else:
        conclude(*arguments, fail=False)
    assert (tmp_path / "end.txt").exists() is not fail
    printed = capsys.readouterr().err
    assert "Dice 0.9" in printed
    assert "c (inspect_slide): it is empty. Remedy: copy it again." in printed

from lesionmap.files.records import read_table, write_json
from lesionmap.run.exclusion import exclude, excluded_slides, excluded_table, taken_off


def inspected(name, path, content):
    write_json(f"results/slides/{name}.json", {"info": {"identity": content}} if content else {})
    write_json(f"results/slides/location/{name}.json", {"path": path})


def test_an_excluded_slide_is_listed_once_and_again_if_it_was_another_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sheet = tmp_path / "my slides.tsv"
    assert excluded_slides(sheet) == []
    inspected("a", "x/a.svs", "1a")
    exclude(sheet, ["a", "unknown"])
    exclude(sheet, ["a", "unknown"])
    inspected("a", "x/a.svs", "2b")
    exclude(sheet, ["a"])
    assert excluded_table(sheet) == tmp_path / "my slides.excluded.tsv"
    assert read_table(excluded_table(sheet)) == excluded_slides(sheet)
    assert [tuple(row.values()) for row in excluded_slides(sheet)] == [
        ("a", "x/a.svs", "1a"),
        ("unknown", "", ""),
        ("a", "x/a.svs", "2b"),
    ]


def test_a_slide_with_another_id_in_the_sheet_was_not_taken_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, path in (("old_id", "a.svs"), ("off", "b.svs"), ("kept", "c.svs")):
        inspected(name, path, name)
    inspected("in_quarantine", "d.svs", "")
    found = taken_off({"new_id": str(tmp_path / "a.svs"), "kept": "elsewhere.svs"})
    assert [(row["slide"], row["path"]) for row in found] == [("in_quarantine", "d.svs"), ("off", "b.svs")]

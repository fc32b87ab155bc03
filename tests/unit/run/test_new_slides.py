import os
import time

import pytest
from lesionmap.errors import SettingsError
from lesionmap.files.records import write_json
from lesionmap.run.exclusion import exclude
from lesionmap.run.new_slides import add_new_slides, main
from lesionmap.slides.identity import content_digest
from lesionmap.slides.sheet import read_sheet
from project import ROOT

SCHEMA = ROOT / "workflow/schemas/slides.schema.yaml"


def slide(path, hours_ago=2.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    date = time.time() - 3600 * hours_ago
    os.utime(path, (date, date))
    return path


def paths(sheet):
    return {name: row.path for name, row in read_sheet(sheet, SCHEMA, None).items()}


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store of slides"


@pytest.fixture
def sheet(tmp_path):
    return tmp_path / "slides.tsv"


def test_slides_are_added_for_inference_and_once(sheet, store):
    first = slide(store / "case 1/a.svs")
    assert add_new_slides(sheet, store).added == {"case_1_a": first}
    assert sheet.read_text() == f"slide\tpath\tsplit\ncase_1_a\t{first}\tinference\n"
    second = slide(store / "B.TIFF")
    assert add_new_slides(sheet, store).added == {"B": second}
    written = sheet.stat().st_mtime_ns
    assert add_new_slides(sheet, store).added == {}
    assert sheet.stat().st_mtime_ns == written
    assert paths(sheet) == {"case_1_a": str(first), "B": str(second)}


def test_a_sheet_of_thousands_is_searched_to_its_end(sheet, store):
    for number in range(3000):
        slide(store / f"a long name of a case, as scanners give them {number}.svs")
    assert len(add_new_slides(sheet, store).added) == 3000
    assert add_new_slides(sheet, store).added == {}


def test_a_folder_without_slides_makes_a_sheet_without_rows(sheet, store):
    store.mkdir()
    assert add_new_slides(sheet, store).added == {}
    assert sheet.read_text() == "slide\tpath\tsplit\n"


def test_rows_stay_as_they_are_in_any_order_of_columns_and_without_a_last_line_end(sheet, store, monkeypatch):
    """As a spreadsheet on Windows wrote them; paths from the working directory, or by a link, are known too."""
    monkeypatch.chdir(store.parent)
    slide(store / "known.svs")
    slide(store / "linked.svs")
    (store.parent / "elsewhere").symlink_to(store)
    rows = (
        "\ufeffpatient\tsplit\tpath\tslide\r\n\r\n"
        "p 1\tinference\tstore of slides/known.svs\tone\r\n\tinference\telsewhere/linked.svs\ttwo"
    )
    sheet.write_bytes(rows.encode())
    new = slide(store / "new.svs")
    assert add_new_slides(sheet, store).added == {"new": new}
    assert sheet.read_bytes().decode() == f"{rows}\r\n\tinference\t{new}\tnew\r\n"
    assert set(paths(sheet)) == {"one", "two", "new"}


def test_ids_are_unique_and_as_the_sheet_may_have_them(sheet, store):
    names = ["a b.svs", "a_b.svs", "a_b.tif", "cohort.svs", "-.svs", "größe.svs", f"{'x' * 120}.svs"]
    for name in names:
        slide(store / name)
    slide(sheet.parent / "other/a_b_2.svs")
    sheet.write_text("slide\tpath\tsplit\na_b_2\tother/a_b_2.svs\tinference\n")
    added = add_new_slides(sheet, store).added
    assert sorted(path.name for path in added.values()) == sorted(names)
    assert {"a_b", "a_b_3", "a_b_4", "cohort", "slide_2", "gr__e"} < added.keys()
    assert paths(sheet).keys() == {"a_b_2"} | added.keys()  # which checks them


def test_ids_differ_by_more_than_case_and_rows_with_quotes_and_notes_keep_their_bytes(sheet, store, monkeypatch):
    known = slide(store / 'of "me".svs')
    monkeypatch.chdir(store)
    rows = 'slide\tpath\tsplit\tNote\nCase_1\t"of ""me"".svs"\tinference\t"12"" slide,\r\nold"\n'
    sheet.write_bytes(rows.encode())
    lower, upper, quoted = slide(store / "case 1.svs"), slide(store / "B.svs"), slide(store / '"b.svs')
    assert add_new_slides(sheet, store).added == {"b": quoted, "B_2": upper, "case_1_2": lower}
    text = sheet.read_bytes().decode()
    assert text.startswith(rows)
    assert text.endswith("\tinference\t\n")
    paths = {row.slide: row.path for row in read_sheet(sheet, SCHEMA, None, ["Note"]).values()}
    assert paths == {"Case_1": known.name, "b": str(quoted), "B_2": str(upper), "case_1_2": str(lower)}
    assert add_new_slides(sheet, store).added == {}


def test_what_is_no_slide_is_hidden_or_is_linked_twice_is_passed_over(sheet, store):
    slide(store / "notes.txt")
    slide(store / ".snapshot/a.svs")
    slide(store / ".a.svs.partial.svs")
    first = slide(store / "a.svs")
    (store / "b.svs").symlink_to(first)
    (store / "gone.svs").symlink_to(store / "nowhere")
    (store / "folder.svs").mkdir()
    new = add_new_slides(sheet, store)
    assert new.added == {"a": first}
    assert new.changing == [store / "gone.svs"]


def test_slides_that_still_change_wait_with_all_their_files(sheet, store):
    slide(store / "fresh.svs", hours_ago=0.5)
    mirax = slide(store / "mirax.mrxs")
    (store / "mirax").mkdir()
    (store / "mirax/Slidedat.ini").write_text("[DATAFILE]\nFILE_0 = Data0001.dat\nFILE_1 = Absent.dat\n")
    os.utime(store / "mirax/Slidedat.ini", (0, 0))
    part = slide(store / "mirax/Data0001.dat", hours_ago=0.1)
    new = add_new_slides(sheet, store)
    assert new.added == {}
    assert new.changing == [store / "fresh.svs", mirax]
    slide(part)
    assert add_new_slides(sheet, store).added == {"mirax": mirax}


def inspected(folder, name, path):
    """The record of an inspection; None: of a slide in quarantine."""
    info = path and {"info": {"identity": content_digest(path)}}
    write_json(folder / f"results/slides/{name}.json", {"slide": name} | (info or {}))
    write_json(folder / f"results/slides/location/{name}.json", {"path": str(path or "")})


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return slide(path)


def test_a_slide_whose_row_was_deleted_does_not_come_back_under_any_name(sheet, store, monkeypatch, capsys):
    monkeypatch.chdir(sheet.parent)
    gone, other = written(store / "a.svs", "a slide"), written(store / "b.svs", "b slide")
    in_quarantine = written(store / "broken.svs", "torn")
    add_new_slides(sheet, store)
    for name, path in (("a", gone), ("b", other), ("broken", None)):
        inspected(sheet.parent, name, path)
    sheet.write_text("".join(line for line in sheet.read_text().splitlines(True) if line.startswith(("slide", "b\t"))))
    gone.rename(store / "renamed.svs")
    fresh = written(store / "new.svs", "new slide")
    new = add_new_slides(sheet, store)
    assert new.taken_off == {in_quarantine: "broken", store / "renamed.svs": "a"}
    assert new.added == {"new": fresh}
    exclude(sheet, ["a", "broken"])
    for record in (sheet.parent / "results/slides").glob("[ab]*.json"):
        record.unlink()  # as prune_listed does
    digest = content_digest(store / "renamed.svs")
    assert (
        sheet.parent / "slides.excluded.tsv"
    ).read_text() == f"slide\tpath\tsha256\na\t{gone}\t{digest}\nbroken\t\t\n"
    monkeypatch.setattr("sys.argv", ["new_slides", str(sheet), str(store)])
    main()
    assert "renamed.svs is left out: it was taken off the sheet (a). Remedy: if you want it" in capsys.readouterr().out
    assert paths(sheet).keys() == {"b", "new"}
    with open(sheet, "a") as stream:
        stream.write(f"again\t{store / 'renamed.svs'}\tinference\n")
    assert add_new_slides(sheet, store).taken_off == {in_quarantine: "broken"}


def test_slides_can_be_excluded_by_hand_by_path_or_by_content(sheet, store, monkeypatch):
    monkeypatch.chdir(sheet.parent)
    by_path, by_content, free = (written(store / f"{name}.svs", name) for name in ("x", "y", "z"))
    table = f"path\tsha256\tslide\n{by_path.relative_to(sheet.parent)}\t\tfirst\n\t{content_digest(by_content)}\t\n"
    (sheet.parent / "slides.excluded.tsv").write_text(table)
    new = add_new_slides(sheet, store)
    assert (new.added, new.taken_off) == ({"z": free}, {by_path: "first", by_content: ""})


def test_a_moved_slide_keeps_its_row_which_gets_the_new_path(sheet, store, monkeypatch):
    """Rows with notes over several lines, quotes and Windows line ends; the path is the last column."""
    monkeypatch.chdir(sheet.parent)
    here, moved = written(store / "here.svs", "one"), written(store / "old.svs", "two, which moves")
    rows = (
        'note\tslide\tsplit\tpath\r\n"a\tb"\tone\tinference\t"store of slides/here.svs"\r\n'
        '"1""\n2"\ttwo\ttest\tstore of slides/old.svs\r\n\tthree\ttest\tstore of slides/lost.svs\r\n'
    )
    sheet.write_bytes(rows.encode())
    for name, path in (("one", here), ("two", moved)):
        inspected(sheet.parent, name, path)
    target = store / "archive/2 new.svs"
    target.parent.mkdir()
    moved.rename(target)
    copy = written(store / "copy.svs", "one")  # of a slide that is still there: a second slide, which the doctor tells
    new = add_new_slides(sheet, store)
    assert (new.moved, new.added, new.taken_off) == ({"two": target}, {"copy": copy}, {})
    expected = rows.replace("store of slides/old.svs", str(target)) + f"\tcopy\tinference\t{copy}\r\n"
    assert sheet.read_bytes().decode() == expected
    assert add_new_slides(sheet, store).moved == {}


def test_names_that_no_sheet_can_hold_are_told_and_cost_the_others_nothing(sheet, store, monkeypatch, capsys):
    for name in ("tab\t.svs", "line\n.svs", "{braces}.svs", os.fsdecode(b"latin-1 \xe9.svs")):
        slide(store / name)
    slide(store / "good.svs")
    monkeypatch.setattr("sys.argv", ["new_slides", str(sheet), str(store)])
    main()
    assert paths(sheet).keys() == {"good"}
    printed = capsys.readouterr().out
    assert f"1 slides of {store} are new in {sheet}." in printed
    assert printed.count("is left out. Remedy: rename it") == 4


def test_a_folder_that_is_not_there_and_a_sheet_of_other_columns_are_refused(sheet, store, monkeypatch):
    with pytest.raises(SettingsError, match="store of slides is not there or cannot be read"):
        add_new_slides(sheet, store)
    assert not sheet.exists()
    slide(store / "a.svs")
    sheet.write_text("name\tfile\n")
    monkeypatch.setattr("sys.argv", ["new_slides", str(sheet), str(store)])
    with pytest.raises(SystemExit, match=r"LesionMap: slide sheet: .*slides.tsv: \n  - it has no column 'slide'"):
        main()
    assert sheet.read_text() == "name\tfile\n"

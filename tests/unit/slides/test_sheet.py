import re
import time

import pytest
import yaml
from lesionmap.errors import SettingsError
from lesionmap.slides.sheet import SlideRow, read_sheet, unknown_slide

HEAD = "slide\tpath\tsplit\tannotation\tmpp\n"
WHITE = "slide\tpath\tsplit\twhite_point\n"


@pytest.fixture
def root(request):
    return request.config.rootpath


@pytest.fixture
def config(root):
    return yaml.safe_load((root / "config/config.yaml").read_text())


def sheet(root, tmp_path, text, encoding="utf-8", roots=None, ignored=()):
    (tmp_path / "slides.tsv").write_text(text, encoding=encoding, newline="")
    return read_sheet(tmp_path / "slides.tsv", root / "workflow/schemas/slides.schema.yaml", roots, ignored)


def test_a_sheet_is_read_with_windows_line_ends_bom_and_spaces(root, tmp_path):
    text = HEAD + "a\t x.svs \ttrain\tx.xml\t0.25\n" + "b\ty.svs\tinference\t\t\n"
    rows = sheet(root, tmp_path, text.replace("\n", "\r\n"), encoding="utf-8-sig")
    assert list(rows.values()) == [
        SlideRow("a", "x.svs", "train", "x.xml", mpp=0.25),
        SlideRow("b", "y.svs", "inference"),
    ]


def test_blank_lines_and_what_spreadsheets_add_to_lines_are_left_out(root, tmp_path):
    blank = ["", "  ", "\t\t\t\t\t"]
    lines = [*blank, HEAD.strip() + "\t \t", *blank, "a\tx.svs\tinference\t\t\t\t  ", "b\ty.svs\tinference  ", *blank]
    rows = sheet(root, tmp_path, "\r\n".join(lines) + "\r\n\r\n", encoding="utf-8-sig")
    assert rows == {"a": SlideRow("a", "x.svs", "inference"), "b": SlideRow("b", "y.svs", "inference")}


def test_a_bad_row_among_ten_thousand_is_named_within_seconds(root, tmp_path):
    rows = [f"s{number}\tx.svs\tinference\t\t\n" for number in range(10_000)]
    rows[7_776] = "s7776\tx.svs\tinference\t\t0,25\n"
    start = time.perf_counter()
    with pytest.raises(SettingsError) as raised:
        sheet(root, tmp_path, HEAD + "".join(rows))
    assert time.perf_counter() - start < 10
    (problem,) = re.findall(r"- (.*)", str(raised.value))
    assert problem.startswith("line 7778 (s7776), mpp: '0,25' does not match")
    assert problem.endswith("(µm/px of level 0, where the file does not say it or is wrong; else empty)")
    assert str(raised.value).endswith("Remedy: correct those rows.")


def test_all_bad_rows_are_listed_at_once_up_to_twenty(root, tmp_path):
    rows = [f"s{number}\tx.svs\tdev\t\t\n" for number in range(30)]
    with pytest.raises(SettingsError) as raised:
        sheet(root, tmp_path, HEAD + "".join(rows))
    assert re.findall(r"- line (\d+) \(s\d+\), split: 'dev' is not one of", str(raised.value)) == [
        str(number) for number in range(2, 22)
    ]
    assert "… and 10 more" in str(raised.value)


def test_a_way_out_of_a_root_behind_a_link_is_refused_for_slides(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere/deep")
    text = "slide\tpath\tsplit\na\t{}\tinference\n"
    assert len(sheet(root, tmp_path, text.format("data/link/x.svs"), roots=["data"])) == 1
    with pytest.raises(SettingsError, match=r"is not in slides.roots"):
        sheet(root, tmp_path, text.format("data/link/../x.svs"), roots=["data"])


def test_optional_columns_of_slides_may_come_in_any_order_or_not_at_all(root, tmp_path):
    text = "patient\tslide\tsplit\tupsample\tmask_mpp\tpath\tannotation\n"
    rows = sheet(root, tmp_path, text + "p1\ta\ttest\tTrue\t4.5\tx.svs\tm.png\np1\tb\tinference\tfalse\t\ty.svs\t\n")
    assert rows["a"] == SlideRow("a", "x.svs", "test", "m.png", upsample=True, mask_mpp=4.5, patient="p1")
    assert rows["b"] == SlideRow("b", "y.svs", "inference", patient="p1")
    assert sheet(root, tmp_path, "slide\tpath\tsplit\na\tx.svs\tinference\n") == {
        "a": SlideRow("a", "x.svs", "inference")
    }


def test_a_second_reader_is_of_slides_that_are_evaluated_and_has_a_file_of_their_own(root, tmp_path):
    text = "slide\tpath\tsplit\tannotation\tannotation_2\n"
    splits = ("train", "val", "test", "inference")
    rows = sheet(root, tmp_path, text + "".join(f"{split}\tx.svs\t{split}\tx.xml\ty.xml\n" for split in splits))
    assert [rows[split].second_reader for split in splits] == [False, True, True, False]
    assert not sheet(root, tmp_path, text + "a\tx.svs\ttest\tx.xml\n")["a"].second_reader
    with pytest.raises(SettingsError, match=r"line 3 \(b\), annotation_2: is the file in annotation; name the second"):
        sheet(root, tmp_path, text + "a\tx.svs\ttest\tx.xml\ty.xml\nb\tx.svs\ttest\ty.xml\ty.xml\n")
    with pytest.raises(SettingsError, match=r"line 2 \(a\), annotation_2: s3://h/y.xml is on a server"):
        sheet(root, tmp_path, text + "a\tx.svs\ttest\tx.xml\ts3://h/y.xml\n")


@pytest.mark.parametrize("path", ["../x.svs", "/etc/passwd", "slides/../../x.svs", "slides_2/x.svs"])
@pytest.mark.parametrize("column", ["path", "annotation", "annotation_2"])
def test_slides_and_annotations_stay_within_the_declared_roots(root, tmp_path, monkeypatch, path, column):
    monkeypatch.chdir(tmp_path)
    row = {"slide": "a", "path": "slides/x.svs", "split": "test", "annotation": "slides/x.xml"} | {column: path}
    text = "\t".join(row) + "\n" + "\t".join(row.values()) + "\n"
    with pytest.raises(
        SettingsError, match=rf"line 2 \(a\), {column}: {path} is not in slides.roots \(slides, data\); add"
    ):
        sheet(root, tmp_path, text, roots=["slides", "data"])
    assert getattr(sheet(root, tmp_path, text, roots=None)["a"], column) == path


@pytest.mark.parametrize("path", ["https://h/ab/x.svs", "https://h.evil/a/x.svs", "http://h/a/x.svs", "s3://h/a/x.svs"])
def test_addresses_of_slides_stay_within_the_declared_roots(root, tmp_path, path):
    text = "slide\tpath\tsplit\na\t{}\tinference\n"
    for within in ("https://h/a/%20x..svs", "https://H:443/a/x.svs"):
        assert len(sheet(root, tmp_path, text.format(within), roots=["https://h/a"])) == 1
    with pytest.raises(SettingsError, match=r"line 2 \(a\), path: .* is not in slides.roots \(https://h/a\)"):
        sheet(root, tmp_path, text.format(path), roots=["https://h/a"])


@pytest.mark.parametrize("dots", ["..", "%2e%2E", "%252e%252e", "%25252e.", "b%2f..", "..%5cb"])
@pytest.mark.parametrize("server", ["https://h/a", "s3://h/a"])
def test_a_way_up_in_an_address_of_slides_is_refused_however_it_is_encoded(root, tmp_path, server, dots):
    text = f"slide\tpath\tsplit\na\t{server}/{dots}/x.svs\tinference\n"
    with pytest.raises(SettingsError, match=r"line 2 \(a\), path: .*/x.svs has a part '\.\.', .*; write it without"):
        sheet(root, tmp_path, text, roots=[server])
    assert len(sheet(root, tmp_path, text, roots=None)) == 1


@pytest.mark.parametrize("path", ["https://me:s3cret@h/x.svs", "https://:s3cret@h/x.svs", "https://h/x.svs?sig=s3cret"])
def test_keys_in_addresses_of_slides_are_refused_and_not_repeated(root, tmp_path, path):
    with pytest.raises(SettingsError, match=r"https://h/x.svs holds a user or a query") as raised:
        sheet(root, tmp_path, f"slide\tpath\tsplit\na\t{path}\tinference\n", roots=["https://h"])
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("path", ["slides/x.svs", "slides/deep/../x.svs", "./slides/x.svs", "{cwd}/slides/x.svs"])
def test_any_way_of_writing_a_path_within_a_root_is_fine_for_slides(root, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    text = f"slide\tpath\tsplit\na\t{path.format(cwd=tmp_path)}\tinference\n"
    assert len(sheet(root, tmp_path, text, roots=["slides"])) == 1
    assert len(sheet(root, tmp_path, text, roots=["."])) == 1
    assert len(sheet(root, tmp_path, text, roots=[str(tmp_path)])) == 1


@pytest.mark.parametrize("text", ["189,188,186", "189, 188 , 186"])
def test_the_white_point_of_a_slide_is_three_numbers(root, tmp_path, text):
    rows = sheet(root, tmp_path, f"{WHITE}a\tx.svs\tinference\t{text}\nb\ty.svs\tinference\t\n", roots=None)
    assert rows["a"].white_point == (189, 188, 186)
    assert rows["b"].white_point is None


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (HEAD, "has no slides"),
        (HEAD + "a\tx.svs\ttrain\t\t\n", r"line 2 \(a\), annotation: .*need an annotation file"),
        (HEAD + "a\tx.svs\tdev\t\t\n", r"line 2 \(a\), split: 'dev' is not one of"),
        (HEAD + "a b\tx.svs\tinference\t\t\n", r"line 2 \(a b\), slide: 'a b' does not match"),
        (HEAD + "../a\tx.svs\tinference\t\t\n", r"slide: '\.\./a' does not match"),
        (HEAD + "a\tx.svs\tinference\t\thalf\n", r"mpp: 'half' does not match .*µm/px of level 0"),
        (HEAD + "a\tx.svs\tinference\t\t0.0\n", r"mpp: '0.0' does not match .*µm/px of level 0"),
        ("slide\tpath\tsplit\tupsample\na\tx.svs\tinference\tyes\n", r"upsample: 'yes' does not match .*true if"),
        (WHITE + "a\tx.svs\tinference\t189,188\n", r"white_point: '189,188' does not match .*R,G,B from 100 to 255"),
        (WHITE + "a\tx.svs\tinference\t256,188,186\n", r"white_point: '256,188,186' does not match"),
        (WHITE + "a\tx.svs\tinference\t18,188,186\n", r"white_point: '18,188,186' does not match"),
        ("slide\tpath\tsplit\tmmp\na\tx.svs\tinference\t\n", r"it has a column 'mmp' \(is 'mpp' meant\?\)"),
        ("slide\tpath\tsplit\tAnnotaton\n", r"it has a column 'Annotaton' \(is 'annotation' meant\?\)"),
        ("slide\tpath\tsplit\tBlock\n", r"it has a column 'Block'\n(.|\n)*list others .* in slides\.ignored_columns"),
        ("slide\tpath\tsplit\tmpp\tmpp\n", r"it has the column 'mpp' twice"),
        (
            HEAD + "B-7.a\tx.svs\tinference\nc\tz.svs\tinference\nb-7.A\ty.svs\tinference\n",
            r"lines 2 and 4, slide: B-7.a and b-7.A differ in case only",
        ),
        (HEAD + "a\tx.svs\tinference\t\t\na\ty.svs\tinference\t\t\n", r"lines 2 and 3, slide: all have 'a'"),
        (HEAD + "a\tx.svs\tinference\n" * 3, r"lines 2, 3 and 4, slide: all have 'a' \(ids are unique; delete"),
        (HEAD + "x" * 101 + "\tx.svs\tinference\t\t\n", "slide: .* is too long"),
        (HEAD + "a\tx{b}.svs\tinference\t\t\n", r"path: 'x\{b\}.svs' does not match .*without braces"),
        (HEAD + 'a\tx"y.svs\tinference\t\t\nb\ty.svs\tdev\t\t\n', r"line 3 \(b\), split: 'dev'"),
        (
            HEAD + '\na\t"x.svs\tinference\t\t\nb\ty.svs\tinference\t\t\n',
            "line 3: a field begins with a quote and does",
        ),
        (
            HEAD + 'a\t"x".svs\tinference\t\t\n',
            'line 2: .* write the field as spreadsheets do: "12"" slide" for 12" slide',
        ),
        (HEAD + 'a\t"x.svs\tinference\nb\ty"\tinference\n', "line 2: .*it ends in line 3, behind tabs and line ends"),
        (
            HEAD + 'a\t"x\ny.svs"\tinference\nb\tz.svs\tdev\n',
            r"line 2 \(a\), path: 'x\\ny.svs' holds a tab or a line end(.|\n)*line 4 \(b\)",
        ),
        (HEAD + "a\tx.svs\tinference\t\t\t\tmore\n", r"line 2 \(a\) has 7 fields, for 5 columns"),
        ("slide\tpath\n", "it has no column 'split'"),
        ("", "it has no column 'slide'"),
        (HEAD + "\n \t\t\t\t\na b\tx.svs\tinference\n", r"line 4 \(a b\), slide: 'a b' does not match"),
    ],
)
def test_sheet_mistakes_name_line_and_column(root, tmp_path, text, finding):
    with pytest.raises(SettingsError, match=finding):
        sheet(root, tmp_path, text)


def test_quotes_are_read_as_spreadsheets_write_them(root, tmp_path):
    """What Excel makes of cells with tabs, commas, quotes and line ends, and quotes that stand inside a field."""
    lines = (
        'slide\t"path"\tpatient\tnote\tsplit',
        'a\t"in, out/x ""old"".svs"\t12" slide\t"first\nsecond ""line"""\tinference',
        'b\ty.svs\t""\tsays "maybe"\tinference',
        'c\tz.svs\t"""q"""\t"a\tb"\tdev',
    )
    text = "\r\n".join(lines) + "\r\n"
    with pytest.raises(SettingsError, match=r"line 5 \(c\), split: 'dev'"):  # one row takes two lines
        sheet(root, tmp_path, text, ignored=["note"])
    rows = sheet(root, tmp_path, text.replace("dev", "inference"), ignored=["note"])
    assert list(rows.values()) == [
        SlideRow("a", 'in, out/x "old".svs', "inference", patient='12" slide'),
        SlideRow("b", "y.svs", "inference"),
        SlideRow("c", "z.svs", "inference", patient='"q"'),
    ]


def test_columns_that_are_declared_are_ignored_and_no_others(root, tmp_path):
    """As a LIMS exports them: several of one name, some after the columns that are read, none instead of those."""
    text = (
        "LIMS no\tslide\tRemarks\tpath\tRemarks\tsplit\tpatient\tLIMS date\n7\ta\t{x}\tx.svs\t\tinference\tp\t1 May\n"
    )
    expected = {"a": SlideRow("a", "x.svs", "inference", patient="p")}
    assert sheet(root, tmp_path, text, ignored=["LIMS *", "Remarks"]) == expected
    assert sheet(root, tmp_path, text, ignored=["*"]) == expected
    with pytest.raises(SettingsError) as raised:
        sheet(root, tmp_path, text, ignored=["LIMS date", "remarks"])
    assert re.findall("- (.*)", str(raised.value)) == ["it has a column 'LIMS no'", *["it has a column 'Remarks'"] * 2]


def test_an_id_that_the_sheet_lacks_is_told_with_those_like_it():
    ids = [f"case_{number}" for number in range(12)]
    assert "no slide 'csae_7' in the sheet. Remedy: name one of its 12, e.g. case_7" in unknown_slide("csae_7", ids)
    assert unknown_slide("x", ids).endswith("e.g. case_0, case_1, case_2.")


def test_ids_that_pandas_takes_for_missing_are_kept(root, tmp_path):
    assert list(sheet(root, tmp_path, HEAD + "NA\tx.svs\tinference\t\t\n")) == ["NA"]


@pytest.mark.parametrize("content", [b"\xff\xfes\x00l\x00", b"slide\tpath\tsplit\na\t\xe4.svs\ttrain\n", None])
def test_a_sheet_of_slides_that_is_absent_or_not_utf_8_is_refused(root, tmp_path, content):
    if content:
        (tmp_path / "slides.tsv").write_bytes(content)
    with pytest.raises(SettingsError, match=r"slides.tsv cannot be read .*UTF-8 as slides\.sheet"):
        read_sheet(tmp_path / "slides.tsv", root / "workflow/schemas/slides.schema.yaml", None)


def test_columns_of_groups_are_allowed_and_read(root, tmp_path):
    text = 'Scanner\tslide\tpath\tsplit\tsite\n"Make \n 2"\ta\tx.svs\tinference\tnorth\n\tb\ty.svs\tinference\n'
    (tmp_path / "slides.tsv").write_text(text)
    schema = root / "workflow/schemas/slides.schema.yaml"
    rows = read_sheet(tmp_path / "slides.tsv", schema, None, groups=["Scanner", "site"])
    assert rows["a"] == SlideRow("a", "x.svs", "inference", site="north", groups={"Scanner": "Make 2", "site": "north"})
    assert rows["b"] == SlideRow("b", "y.svs", "inference", groups={"Scanner": "", "site": ""})
    with pytest.raises(SettingsError, match="it has a column 'Scanner'"):
        read_sheet(tmp_path / "slides.tsv", schema, None, groups=["site"])


@pytest.mark.parametrize(
    ("named", "meant"), [("scanner", r" \(is 'Scanner' meant\?\)"), ("site", ""), ("staining day", "")]
)
def test_a_group_without_a_column_is_refused(root, tmp_path, named, meant):
    (tmp_path / "slides.tsv").write_text("slide\tpath\tsplit\tScanner\na\tx.svs\tinference\tX\n")
    said = f"it has no column '{named}'{meant}, which evaluation.groups names; add it or take it out there"
    with pytest.raises(SettingsError, match=said):
        read_sheet(tmp_path / "slides.tsv", root / "workflow/schemas/slides.schema.yaml", None, ["Scanner"], [named])


def test_a_column_of_groups_that_is_there_twice_is_refused(root, tmp_path):
    (tmp_path / "slides.tsv").write_text("slide\tpath\tsplit\tX\tX\na\tx.svs\tinference\t1\t2\n")
    with pytest.raises(SettingsError, match="it has the column 'X' twice"):
        read_sheet(tmp_path / "slides.tsv", root / "workflow/schemas/slides.schema.yaml", None, groups=["X"])

"""What the cohort's page shows beside its slides."""

from math import nan

from lesionmap.report.cohort import largest_false_positives, lowest_dice, stage_times


def row(slide, dice, *, predicted_mm2=1.0, false_lesions=0):
    return {"slide": slide, "dice": dice, "predicted_mm2": predicted_mm2, "false_lesions": false_lesions}


def names(rows):
    return [row["slide"] for row in rows]


def test_the_lowest_dice_comes_first_and_slides_without_lesion_are_left_out():
    rows = [row("a", 0.9), row("b", 0.2), row("c", nan), row("d", 0.5), row("e", 0.5)]
    assert names(lowest_dice(rows)) == ["b", "d", "e", "a"]


def test_the_largest_false_area_comes_first_then_the_most_false_lesions():
    rows = [
        row("lesion", 0.9, predicted_mm2=9.0),
        row("small", nan, predicted_mm2=0.1, false_lesions=9),
        row("few", nan, predicted_mm2=0.5, false_lesions=1),
        row("many", nan, predicted_mm2=0.5, false_lesions=3),
        row("clean", nan, predicted_mm2=0.0),
    ]
    assert names(largest_false_positives(rows)) == ["many", "few", "small"]


def test_at_most_ten_are_shown():
    rows = [row(f"s{n}", n / 100) for n in range(12)] + [row(f"f{n}", nan, predicted_mm2=n) for n in range(12)]
    assert names(lowest_dice(rows)) == [f"s{n}" for n in range(10)]
    assert names(largest_false_positives(rows)) == [f"f{n}" for n in range(11, 1, -1)]


def test_stage_times_sum_over_slides(tmp_path):
    assert stage_times(str(tmp_path / "absent")) == []
    columns = "s\th:m:s\tmax_rss\n"
    (tmp_path / "find_tissue").mkdir()
    (tmp_path / "find_tissue" / "a.tsv").write_text(columns + "1.5\t0:00:01\t60.5\n")
    (tmp_path / "find_tissue" / "b.tsv").write_text(columns + "2.0\t0:00:02\tNA\n")
    (tmp_path / "train.tsv").write_text(columns + "90.0\t0:01:30\t900\n")
    (tmp_path / "render_report.tsv").write_text(columns + "99.0\t0:01:39\t900\n")
    assert stage_times(str(tmp_path)) == [
        {"stage": "train", "jobs": 1, "seconds": 90.0, "longest_s": 90.0, "peak_mb": 900.0},
        {"stage": "find_tissue", "jobs": 2, "seconds": 3.5, "longest_s": 2.0, "peak_mb": 60.5},
    ]

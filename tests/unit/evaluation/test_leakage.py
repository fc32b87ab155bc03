"""Leakage: what the model has seen of an evaluated slide."""

import pytest
from lesionmap.errors import SettingsError
from lesionmap.evaluation.leakage import (
    CHOSEN,
    INTERNAL,
    NOT_EXTERNAL,
    SEEN,
    UNKNOWN_PATIENTS,
    UNKNOWN_SLIDES,
    UNSEEN,
    Seen,
    group_of,
    mark_of,
    refuse,
    validation_of,
)

METADATA = {
    "training_slides": {"t1": "11", "t2": "22"},
    "validation_slides": {"v1": "33", "v2": "44"},
    "patients": {  # printf Änne | sha256sum
        "t2": "1c86cb05547f3ee86bd480a0ec4bba294aebcce007f7e33ed60ee8c342d90728",
        "v1": "df7277ce51eae0951ea35d5ffb374dbdff42a93c91d6bf5c3e8b9e21929964f0",
    },
}


@pytest.mark.parametrize(
    ("identity", "patient", "expected"),
    [
        ("99", None, ""),
        ("99", "someone", ""),
        ("99", "", ""),
        (None, None, ""),
        ("22", None, "training slide of the model (t2)"),
        ("33", None, "validation slide of the model (v1)"),
        ("99", "Änne", "same patient as a training slide of the model (t2)"),
        ("99", "änne", ""),  # ids are compared as they are
        ("99", "p/7", "same patient as a validation slide of the model (v1)"),
        ("11", "Änne", "training slide of the model (t1)"),
        ("44", "Änne", "same patient as a training slide of the model (t2)"),  # worse than to have been validated on
        ("44", "p/7", "validation slide of the model (v2)"),
    ],
)
def test_leakage_is_by_content_and_by_patient_and_the_most_severe_is_named(identity, patient, expected):
    assert Seen.of(METADATA).leakage(identity, patient) == expected
    assert UNSEEN.leakage(identity, patient) == ""


def test_leakage_counts_the_patients_that_the_sheet_names_now_beside_those_in_the_model_file():
    patients = {"t1": "new", "v2": "later", "t2": "renamed", "elsewhere": "other", "v1": ""}
    seen = Seen.of(METADATA, patients)
    found = {patient: seen.leakage("99", patient) for patient in ("new", "later", "renamed", "Änne", "p/7", "other")}
    assert found == {
        "new": "same patient as a training slide of the model (t1)",
        "later": "same patient as a validation slide of the model (v2)",
        "renamed": "same patient as a training slide of the model (t2)",
        "Änne": "same patient as a training slide of the model (t2)",
        "p/7": "same patient as a validation slide of the model (v1)",
        "other": "",  # that slide was not used
    }


def test_leakage_that_a_model_file_cannot_show_is_said():
    old = {"training_slides": {"t1": "11"}, "validation_slides": {}}
    assert Seen.of(METADATA).notes == ()
    assert Seen.of(old).notes == (UNKNOWN_PATIENTS,)
    assert Seen.of(old).leakage("11", "Änne") == "training slide of the model (t1)"
    assert Seen.of({"architecture": {}}).notes == (UNKNOWN_SLIDES,)


@pytest.mark.parametrize(
    ("split", "leakage", "group"),
    [
        ("test", "", "test"),
        ("val", "", "val"),
        ("val", "validation slide of the model (v1)", "val"),
        ("test", "validation slide of the model (v1)", "leaked"),
        ("val", "training slide of the model (t1)", "leaked"),
        ("val", "same patient as a training slide of the model (t1)", "leaked"),
        ("val", "same patient as a validation slide of the model (v1)", "leaked"),
        ("test", "same patient as a validation slide of the model (v1)", "leaked"),
    ],
)
def test_slides_with_leakage_are_a_group_of_their_own_but_for_the_models_own_validation(split, leakage, group):
    assert group_of(split, leakage) == group


def test_a_group_is_marked_if_one_of_its_slides_has_leakage():
    assert mark_of("test", iter(["", ""])) == ""
    assert mark_of("val", iter([])) == ""
    assert mark_of("val", iter(["", "validation slide of the model (v1)"])) == CHOSEN
    assert mark_of("leaked", iter(["training slide of the model (t1)"])) == SEEN


def test_refused_leakage_names_the_slides_the_reasons_and_a_remedy():
    refuse({}, "evaluation")
    leaks = {f"s{n}": f"training slide of the model (t{n})" for n in range(7)}
    with pytest.raises(SettingsError) as error:
        refuse(leaks, "evaluation")
    said = str(error.value)
    assert said.startswith("evaluation: 7 evaluated slides not independent of the model: s0 (training slide of the ")
    assert "s4 (training slide of the model (t4)) and 2 more; evaluation.on_leakage is refuse. Remedy: give " in said
    assert "s5" not in said
    assert "the split inference" in error.value.remedy
    with pytest.raises(SettingsError, match=r"1 evaluated slide not independent of the model: s0 \(.*\(t0\)\); eval"):
        refuse({"s0": leaks["s0"]}, "evaluation")


OF_RUN = METADATA | {"run": "0123456789abcdef", "provenance": {"software": "LesionMap 9.1"}}
OF_T1 = "training slide of the model (t1)"
EXTERNAL = (
    "external validation of a model of another run (run 0123456789ab, LesionMap 9.1), trained on 2 slides and chosen "
    "by 2: on {}, which are not among those, {}"
)
NOT_THEIRS = "and whose patients are not, either"
UNNAMED = f"{NOT_THEIRS}, but for 2 slides whose patient the sheet does not name"
UNRECORDED = "while it is unknown whether their patients are: the model file records none"


@pytest.mark.parametrize(
    ("slides", "expected"),
    [
        ([("", "p"), ("", "q")], EXTERNAL.format("2 of 2 evaluated slides", NOT_THEIRS)),
        ([("", "p"), (OF_T1, "q"), ("", None), ("", "")], EXTERNAL.format("3 of 4 evaluated slides", UNNAMED)),
        ([(OF_T1, "p"), ("validation slide of the model (v1)", None)], NOT_EXTERNAL),
        ([], ""),
    ],
)
def test_a_model_of_another_run_is_validated_externally_by_slides_that_it_has_not_seen(slides, expected):
    assert validation_of(Seen.of(OF_RUN), slides, external=True) == expected
    assert validation_of(Seen.of(OF_RUN), slides, external=False) == (INTERNAL if slides else "")


def test_what_a_model_file_does_not_record_is_not_said_to_be_external():
    slides = [("", "p")]
    without_patients = Seen.of({key: value for key, value in OF_RUN.items() if key != "patients"})
    expected = EXTERNAL.format("1 of 1 evaluated slide", UNRECORDED)
    assert validation_of(without_patients, slides, external=True) == expected
    unknown = validation_of(Seen.of({"architecture": {}}), slides, external=True)
    assert unknown.startswith("validation of a model of another run; whether it is external is unknown, as the model")

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from lesionmap.errors import SlideError
from lesionmap.geometry.resampling import block_max
from lesionmap.lesions.dicom import write_segmentation
from lesionmap.maps.ome_tiff import MapNotes, write_map
from lesionmap.slides.slide import SlideInfo
from pyramids import info_of, write_tiff
from vendor_slides import write_dicom

FACTS = {"provenance": {"code": "abc", "versions": {"numpy": "2"}, "model_training": {"slides": ["t"] * 9000}}}
MPP, MAP_MPP = 0.5, 1.0
SIZE_LV0 = (2017, 1303)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A DICOM slide beside a file of another kind, the same as TIFF, and a map of two lesions."""
    folder = tmp_path_factory.mktemp("dicom")
    image = np.full((*SIZE_LV0[::-1], 3), 240, dtype=np.uint8)
    (folder / "slide").mkdir()
    write_dicom(folder / "slide/s.dcm", image, MPP)
    (folder / "slide/notes.txt").write_text("no DICOM")
    write_tiff(folder / "s.tif", image, mpp=MPP)
    write_map(folder / "lesions.tif", lesions(), MapNotes("s1", "lesion", MAP_MPP, FACTS), block_max)
    return folder


def lesions() -> np.ndarray:
    """Of an asymmetric map of odd size: a rectangle with a hole across tiles, and a pixel in the corner."""
    found = np.zeros((652, 1009), dtype=bool)
    found[495:530, 480:541] = True
    found[500:505, 500:505] = False
    found[651, 1008] = True
    return found


def written(folder: Path, source: str, **changes) -> pydicom.Dataset:
    info = replace(info_of(folder / source), **{"identity": "ab" * 32} | changes)
    write_segmentation(info, folder / "lesions.tif", folder / "lesions.dcm")
    return highdicom.seg.segread(folder / "lesions.dcm")


@pytest.mark.parametrize("source", ["slide/s.dcm", "s.tif"])
def test_the_lesions_lie_in_their_place(folder, source):
    segmentation = written(folder, source)
    found = segmentation.get_total_pixel_matrix(combine_segments=True)
    np.testing.assert_array_equal(found > 0, lesions())
    assert segmentation.NumberOfFrames == 4  # of six
    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.PixelSpacing == [MAP_MPP / 1000, MAP_MPP / 1000]
    (description,) = segmentation.SegmentSequence
    assert (description.SegmentLabel, description.SegmentAlgorithmType) == ("Lesion", "AUTOMATIC")
    assert 'versions={"numpy": "2"}' in description.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters


def test_it_refers_to_the_finest_level_of_a_dicom_slide(folder):
    finest = pydicom.dcmread(folder / "slide/s.dcm")
    for opened in ("slide/s.dcm", "slide/s_4.dcm"):
        segmentation = written(folder, opened)
        (series,) = segmentation.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == finest.SeriesInstanceUID
        assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == [finest.SOPInstanceUID]
        assert segmentation.StudyInstanceUID == finest.StudyInstanceUID


def test_it_lies_in_the_frame_of_a_dicom_slide(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    dataset = pydicom.dcmread(tmp_path / "copy/slide/s.dcm")
    dataset.FrameOfReferenceUID, dataset.PatientID, dataset.StudyDate = "1.2.3", "p7", "20200304"
    dataset.ImageOrientationSlide = [-1, 0, 0, 0, 1, 0]
    dataset.TotalPixelMatrixOriginSequence = [pydicom.Dataset()]
    dataset.TotalPixelMatrixOriginSequence[0].XOffsetInSlideCoordinateSystem = 20.5
    dataset.TotalPixelMatrixOriginSequence[0].YOffsetInSlideCoordinateSystem = 11.25
    dataset.save_as(tmp_path / "copy/slide/s.dcm")
    segmentation = written(tmp_path / "copy", "slide/s.dcm")
    assert (segmentation.FrameOfReferenceUID, segmentation.PatientID) == ("1.2.3", "p7")
    assert (segmentation.StudyDate, segmentation.ContentDate) == ("20200304", "20200304")
    assert segmentation.ImageOrientationSlide == [-1, 0, 0, 0, 1, 0]
    (origin,) = segmentation.TotalPixelMatrixOriginSequence
    assert (origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem) == (20.5, 11.25)
    place = segmentation.PerFrameFunctionalGroupsSequence[-1].PlanePositionSlideSequence[0]
    column, row = place.ColumnPositionInTotalImagePixelMatrix, place.RowPositionInTotalImagePixelMatrix
    assert place.XOffsetInSlideCoordinateSystem == pytest.approx(20.5 - (column - 1) * MAP_MPP / 1000)
    assert place.YOffsetInSlideCoordinateSystem == pytest.approx(11.25 + (row - 1) * MAP_MPP / 1000)


def test_the_same_map_gives_the_same_bytes_and_another_slide_other_names(folder):
    first = written(folder, "s.tif")
    content = (folder / "lesions.dcm").read_bytes()
    again, other = written(folder, "s.tif"), written(folder, "s.tif", identity="cd" * 32)
    written(folder, "s.tif")
    assert (folder / "lesions.dcm").read_bytes() == content
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert first[name] == again[name] != other[name]


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian's dicom3tools) is not installed")
@pytest.mark.parametrize("source", ["slide/s.dcm", "s.tif"])
@pytest.mark.parametrize("empty", [False, True])
def test_dciodvfy_finds_no_error(folder, tmp_path, source, empty):
    shutil.copytree(folder, tmp_path / "copy")
    if empty:
        nothing = np.zeros_like(lesions())
        write_map(tmp_path / "copy/lesions.tif", nothing, MapNotes("s1", "lesion", MAP_MPP, FACTS), block_max)
    segmentation = written(tmp_path / "copy", source)
    assert segmentation.get_total_pixel_matrix(combine_segments=True).any() != empty
    done = subprocess.run(["dciodvfy", tmp_path / "copy/lesions.dcm"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Error" not in done.stdout + done.stderr


def test_a_dicom_slide_without_its_finest_level_is_refused(folder, tmp_path):
    info: SlideInfo = info_of(folder / "slide/s.dcm")
    shutil.copy(folder / "slide/s_4.dcm", tmp_path)
    with pytest.raises(SlideError, match=r"slide s1, write_dicom: no file of .*s_4.dcm's series has 2017 × 1303 px"):
        write_segmentation(replace(info, path=str(tmp_path / "s_4.dcm")), folder / "lesions.tif", tmp_path / "l.dcm")
    assert [path.name for path in tmp_path.iterdir()] == ["s_4.dcm"]

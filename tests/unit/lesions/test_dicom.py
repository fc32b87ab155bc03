import copy
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
from pydicom.dataelem import RawDataElement
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


DESCRIBED = {  # a source with all that a Segmentation copies or computes with, and with private attributes
    "PatientID": "p7",
    "PatientName": "Müller^A",
    "PatientBirthDate": "19500101",
    "PatientSex": "F",
    "AccessionNumber": "a1",
    "StudyID": "1",
    "StudyDate": "20200304",
    "StudyTime": "101112",
    "ReferringPhysicianName": "B^C",
    "ContentDate": "20200305",
    "ContentTime": "111213.5",
    "AcquisitionDateTime": "20200102030405",
    "AcquisitionDate": "20200102",
    "AcquisitionTime": "030405",
    "Manufacturer": "M",
    "ManufacturerModelName": "S7",
    "DeviceSerialNumber": "9",
    "SoftwareVersions": ["1", "2"],
    "InstitutionName": "H",
    "SpecificCharacterSet": "ISO_IR 192",
    "ContainerIdentifier": "c1",
    "FrameOfReferenceUID": "1.2.3",
    "PositionReferenceIndicator": "SLIDE_CORNER",
    "InstanceNumber": 3,
    "ImageOrientationSlide": [-1, 0, 0, 0, 1, 0],
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": [9.5],
    "LossyImageCompressionMethod": "ISO_10918_1",
}
NEEDED = {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"}  # and its size


def described(folder: Path) -> pydicom.Dataset:
    """The finest level of the slide in `folder`, without pixels, as a careful scanner would describe it."""
    dataset = pydicom.dcmread(folder / "slide/s.dcm", stop_before_pixels=True)
    for keyword, value in DESCRIBED.items():
        setattr(dataset, keyword, value)
    origin, specimen = pydicom.Dataset(), pydicom.Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20.5, 11.25
    dataset.TotalPixelMatrixOriginSequence = [origin]
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "c1-1", "1.2.4"
    specimen.IssuerOfTheSpecimenIdentifierSequence = specimen.SpecimenPreparationSequence = []
    dataset.SpecimenDescriptionSequence = [specimen]
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = 0.003
    dataset.private_block(0x3021, "ACME", create=True).add_new(1, "DA", "yesterday")
    return dataset


def attributes(dataset: pydicom.Dataset) -> list[tuple[pydicom.Dataset, pydicom.DataElement]]:
    """All attributes, also those in sequences, each with the dataset that it lies in."""
    found = [(dataset, element) for element in dataset]
    return found + [pair for _, element in found if element.VR == "SQ" for item in element for pair in attributes(item)]


def without_value(holder: pydicom.Dataset, element: pydicom.DataElement) -> None:
    element.value = [] if element.VR == "SQ" else None


def with_an_odd_value(holder: pydicom.Dataset, element: pydicom.DataElement) -> None:
    """Four bytes that are no date, number or code; of a sequence, one item with nothing in it."""
    if element.VR == "SQ":
        element.value = [pydicom.Dataset()]
    else:
        holder._dict[element.tag] = RawDataElement(element.tag, element.VR, 4, b"?\xe4x ", 0, False, True)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom and highdicom, of the odd values
@pytest.mark.parametrize(
    "change", [lambda holder, element: holder.__delitem__(element.tag), without_value, with_an_odd_value]
)
def test_any_attribute_of_the_slide_may_be_absent_empty_or_odd(folder, tmp_path, change):
    (tmp_path / "slide").mkdir()
    shutil.copy(folder / "lesions.tif", tmp_path)
    info = replace(info_of(folder / "slide/s.dcm"), path=str(tmp_path / "slide/s.dcm"))
    full, refused = described(folder), set()
    for number in range(len(attributes(full))):
        dataset = copy.deepcopy(full)
        holder, element = attributes(dataset)[number]
        change(holder, element)
        dataset.save_as(info.path, enforce_file_format=False)
        try:
            write_segmentation(info, tmp_path / "lesions.tif", tmp_path / "lesions.dcm")
        except SlideError as error:
            assert "or set exports.dicom to never" in str(error)
            refused.add(element.keyword)
        else:
            segmentation = highdicom.seg.segread(tmp_path / "lesions.dcm")
            found = segmentation.get_total_pixel_matrix(combine_segments=True)
            np.testing.assert_array_equal(found > 0, lesions())
    size = {"TotalPixelMatrixColumns", "TotalPixelMatrixRows"}
    if change is with_an_odd_value:  # an odd UID is one, too
        assert refused == {"SOPClassUID"} | size
    else:
        assert refused == NEEDED | size


def test_what_is_known_of_the_slide_is_kept_and_the_rest_made_up(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    dataset = described(folder)
    del dataset.AcquisitionDateTime, dataset.AcquisitionDate  # with them, highdicom dates the scanner's contribution
    dataset.StudyDate, dataset.PatientSex, dataset.SpecificCharacterSet = "yesterday", "U", "ISO_IR 192"
    del dataset.ContentDate, dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness
    del dataset.TotalPixelMatrixOriginSequence[0].YOffsetInSlideCoordinateSystem
    dataset.save_as(tmp_path / "copy/slide/s.dcm")
    segmentation = written(tmp_path / "copy", "slide/s.dcm")
    assert (segmentation.PatientName, segmentation.PatientID, segmentation.PatientSex) == ("Müller^A", "p7", "")
    assert (segmentation.StudyDate, segmentation.ContentDate) == ("", "19700101")
    assert segmentation.FrameOfReferenceUID == "1.2.3"
    assert segmentation.SpecimenDescriptionSequence[0].SpecimenUID == "1.2.4"
    scanner, itself = segmentation.ContributingEquipmentSequence
    assert (scanner.Manufacturer, scanner.ManufacturerModelName) == ("M", "S7")
    assert "ContributionDateTime" not in itself
    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SliceThickness == 0.004
    (origin,) = segmentation.TotalPixelMatrixOriginSequence
    assert (origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem) == (20.5, 0)


def test_a_damaged_neighbour_is_no_level(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    content = (folder / "slide/s.dcm").read_bytes()
    (tmp_path / "copy/slide/short.dcm").write_bytes(content[:140])
    (tmp_path / "copy/slide/s.folder").mkdir()
    assert written(tmp_path / "copy", "slide/s.dcm").NumberOfFrames == 4


def test_a_dicom_slide_without_its_finest_level_is_refused(folder, tmp_path):
    info: SlideInfo = info_of(folder / "slide/s.dcm")
    shutil.copy(folder / "slide/s_4.dcm", tmp_path)
    with pytest.raises(SlideError, match=r"slide s1, write_dicom: no file of .*s_4.dcm's series has 2017 × 1303 px"):
        write_segmentation(replace(info, path=str(tmp_path / "s_4.dcm")), folder / "lesions.tif", tmp_path / "l.dcm")
    assert [path.name for path in tmp_path.iterdir()] == ["s_4.dcm"]

"""The lesions of a slide as a DICOM Segmentation (PS3.3 A.51), for archives and viewers that use DICOM."""

import json
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from highdicom import (
    UID,
    AlgorithmIdentificationSequence,
    DimensionOrganizationTypeValues,
    PatientSexValues,
    PixelMeasuresSequence,
    SpecificCharacterSetValues,
    SpecimenDescription,
)
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom import DataElement, Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import VLWholeSlideMicroscopyImageStorage
from pydicom.valuerep import DA, TM, VR

from lesionmap.errors import SlideError
from lesionmap.files.atomic import written_whole
from lesionmap.files.records import sha256
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.ome_tiff import LESION_COLOUR
from lesionmap.maps.on_disk import on_disk, strips
from lesionmap.slides.slide import SlideInfo
from lesionmap.version import VERSION

Conversion = Callable[[Any], object]

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "lesionmap")
DICOM_TILE_PX = 512
DICOM = "dicom"  # OpenSlide's name for the vendor
MAY_BE_EMPTY = (  # attributes of type 2, which are often removed with the patient's name
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
NAMES_OF_FILE = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")  # by which other files refer to it
ENUMERATED: dict[str, Conversion] = {"PatientSex": PatientSexValues, "SpecificCharacterSet": SpecificCharacterSetValues}
CONVERSIONS: dict[str, Conversion] = {VR.DA: DA, VR.TM: TM, VR.DS: float, VR.IS: int}
MODEL_TRAINING = "model_training"  # left out: may exceed DICOM's 10,240 characters; the map's file has it
USUAL_THICKNESS_MM = 0.004  # of a section, if the slide's file does not say it
UNKNOWN_DATE, UNKNOWN_TIME = "19700101", "000000"


def write_segmentation(info: SlideInfo, lesions_map: str | Path, output: str | Path) -> None:
    """Write the binary map of a slide as a DICOM Segmentation with one segment; empty tiles are left out.

    For a DICOM slide, it uses the slide's frame of reference and refers to its finest level. For a slide in another
    format, it makes up a study, a frame of reference and a source image; their UIDs follow from the slide's SHA-256.
    The same map gives the same bytes: dates are the slide's, and all UIDs follow from the contents.

    Parameters
    ----------
    lesions_map : str or Path
        File of :func:`lesionmap.maps.ome_tiff.write_map`.

    Raises
    ------
    SlideError
        If the DICOM slide lacks its finest level, or the UIDs by which other files refer to that. What else it lacks is
        left empty or made up.
    """
    source = _dicom_source(info) if info.vendor == DICOM else _stand_in(info)
    with MapFile(lesions_map) as mapped:
        pixels = on_disk((1, *mapped.shape), np.uint8, Path(output).parent)
        for part in strips(mapped.shape[0]):
            pixels[0, part] = mapped[part] > 0
        key = f"{sha256(lesions_map)} {source.SOPInstanceUID}"
        segmentation = _segmentation(source, pixels, mapped.mpp, mapped.metadata["provenance"], key)
    with written_whole(output) as draft:
        segmentation.save_as(draft, enforce_file_format=True)


def _segmentation(
    source: Dataset, pixels: NDArray[np.uint8], mpp: float, provenance: dict[str, Any], key: str
) -> Segmentation:
    segmentation = Segmentation(
        source_images=[source],
        pixel_array=pixels,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(provenance)],
        series_instance_uid=_uid("series", key),
        series_number=1,
        sop_instance_uid=_uid("instance", key),
        instance_number=1,
        manufacturer="LesionMap",
        manufacturer_model_name="LesionMap",
        software_versions=VERSION,
        device_serial_number=provenance["code"],
        content_label="LESIONS",
        content_description="Lesions found by LesionMap; for research, not for diagnosis",
        pixel_measures=PixelMeasuresSequence((mpp / 1000, mpp / 1000), _slice_thickness(source)),
        tile_pixel_array=True,
        tile_size=(DICOM_TILE_PX, DICOM_TILE_PX),
        dimension_organization_type=DimensionOrganizationTypeValues.TILED_SPARSE,
    )
    segmentation.PatientOrientation = None  # type 2C, which highdicom leaves out
    _make_reproducible(segmentation, source, key)
    return segmentation


def _uid(role: str, key: str) -> UID:
    return UID.from_uuid(str(uuid.uuid5(NAMESPACE, f"{role} {key}")))


def _segment(provenance: dict[str, Any]) -> SegmentDescription:
    parameters = {name: json.dumps(fact) for name, fact in provenance.items() if name != MODEL_TRAINING}
    algorithm = AlgorithmIdentificationSequence(
        name="LesionMap",
        family=codes.DCM.ArtificialIntelligence,
        version=VERSION,
        parameters=parameters,
    )
    return SegmentDescription(
        segment_number=1,
        segment_label="Lesion",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=CIELabColor.from_rgb(*LESION_COLOUR),
    )


def _make_reproducible(segmentation: Segmentation, source: Dataset, key: str) -> None:
    """Replace what highdicom draws at random or takes from the clock."""
    segmentation.ContentDate = DA(source.get("ContentDate") or source.StudyDate or UNKNOWN_DATE)
    segmentation.ContentTime = TM(source.get("ContentTime") or source.StudyTime or UNKNOWN_TIME)
    del segmentation.InstanceCreationDate, segmentation.InstanceCreationTime
    for equipment in segmentation.ContributingEquipmentSequence:
        equipment.pop("ContributionDateTime", None)
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = _uid("dimensions", key)


def _dicom_source(info: SlideInfo) -> Dataset:
    """Attributes of the finest level of a DICOM slide, without pixels; all its files lie in one folder."""
    first = _attributes(Path(info.path))
    levels = [first] if first else []
    for path in sorted(Path(info.path).parent.iterdir()):
        level = _attributes(path)
        if first and level and level.get("SeriesInstanceUID") == first.get("SeriesInstanceUID"):
            levels.append(level)
    finest = [level for level in levels if _size(level) == info.size_lv0]
    if not finest:
        finding = f"no file of {info.path}'s series has {info.size_lv0[0]} × {info.size_lv0[1]} px"
        raise _refusal(info.slide, finding, "keep all files of a DICOM slide in one folder")
    _drop_invalid(finest[0])
    if missing := [name for name in NAMES_OF_FILE if not finest[0].get(name)]:
        finding = f"{info.path} has no {', '.join(missing)}, so that no other file can refer to it"
        raise _refusal(info.slide, finding, "export the slide again")
    return _completed(finest[0], info)


def _refusal(slide: str, finding: str, remedy: str) -> SlideError:
    remedy = f"{remedy}, or set exports.dicom to never"
    return SlideError(slide=slide, stage="write_dicom", finding=finding, remedy=remedy)


def _attributes(path: Path) -> Dataset | None:
    """Attributes of a whole-slide image file, without pixels; None for any other file."""
    if not path.is_file():
        return None
    try:
        dataset = dcmread(path, stop_before_pixels=True)
    except OSError:
        raise
    except Exception:  # pydicom has no common error for files that are no DICOM, or are damaged
        return None
    return dataset if dataset.get("SOPClassUID") == VLWholeSlideMicroscopyImageStorage else None


def _drop_invalid(dataset: Dataset) -> None:
    """Remove values that a Segmentation could not copy, such as dates that are none; log all but empty ones."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            _check(element)
        except Exception:  # pydicom raises what the conversion of a value raises
            logging.warning("the slide's DICOM attribute %s is invalid, and left out", tag)
            del dataset[tag]
            continue
        if element.keyword in ENUMERATED and element.is_empty:
            del dataset[tag]
        for item in element.value if element.VR == VR.SQ else ():
            _drop_invalid(item)


def _check(element: DataElement) -> None:
    """Raise an error if a value is not what its attribute asks for, and a Segmentation copies or computes with it."""
    convert = ENUMERATED.get(element.keyword) or CONVERSIONS.get(element.VR)
    if convert and not element.is_empty:
        for value in [element.value] if element.VM == 1 else element.value:
            convert(value)


def _size(level: Dataset) -> tuple[Any, Any]:
    return level.get("TotalPixelMatrixColumns"), level.get("TotalPixelMatrixRows")


def _completed(source: Dataset, info: SlideInfo) -> Dataset:
    """Add the attributes that a Segmentation copies from its source and that are missing: made up or empty."""
    _add_missing(source, _made_up(info))
    for keyword in MAY_BE_EMPTY:
        source.setdefault(keyword, None)
    return source


def _stand_in(info: SlideInfo) -> Dataset:
    """The attributes that a DICOM file of this slide would have; its id stands for the patient's."""
    source = Dataset()
    source.PatientID = info.slide
    return _completed(source, info)


def _add_missing(own: Dataset, made_up: Dataset) -> None:
    """Add to `own` what it lacks of `made_up`, also in the first items of sequences."""
    for wanted in made_up:
        found = own.get(wanted.tag)
        if found is None or found.is_empty or found.VM != wanted.VM:
            own.add(wanted)
        elif wanted.VR == VR.SQ:
            for item, made_up_item in zip(found.value, wanted.value, strict=False):
                _add_missing(item, made_up_item)


def _made_up(info: SlideInfo) -> Dataset:
    """The attributes that a DICOM file of this slide would have, apart from the patient's."""
    source, origin, measures, groups = Dataset(), Dataset(), Dataset(), Dataset()
    source.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    source.SOPInstanceUID = _uid("image", info.identity)
    source.StudyInstanceUID, source.SeriesInstanceUID = _uid("study", info.identity), _uid("images", info.identity)
    source.Modality = "SM"
    source.ContainerIdentifier = info.slide
    source.IssuerOfTheContainerIdentifierSequence = source.ContainerTypeCodeSequence = []
    source.SpecimenDescriptionSequence = [SpecimenDescription(info.slide, _uid("specimen", info.identity))]
    source.FrameOfReferenceUID = _uid("frame of reference", info.identity)
    source.PositionReferenceIndicator = "SLIDE_CORNER"
    source.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    source.TotalPixelMatrixOriginSequence = [origin]
    source.TotalPixelMatrixColumns, source.TotalPixelMatrixRows = info.size_lv0
    source.Columns, source.Rows, source.NumberOfFrames = DICOM_TILE_PX, DICOM_TILE_PX, 1
    measures.PixelSpacing, measures.SliceThickness = [info.mpp / 1000] * 2, USUAL_THICKNESS_MM
    groups.PixelMeasuresSequence = [measures]
    source.SharedFunctionalGroupsSequence = [groups]
    return source


def _slice_thickness(source: Dataset) -> float:
    """Slice thickness in mm, which a Segmentation must have."""
    return float(source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness)

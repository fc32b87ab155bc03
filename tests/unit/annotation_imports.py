"""Import an annotation file in a test, and look at what came of it."""

from pathlib import Path

import pytest
from annotation_writers import SIZE, info_at, settings
from lesionmap.annotations.canonical import import_annotation
from lesionmap.annotations.formats import read_annotation
from lesionmap.annotations.masks import Annotation
from lesionmap.errors import AnnotationError


def read(tmp_path, name, content, **how):
    """What the reader makes of a file with this content."""
    source = tmp_path / name
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_annotation(str(source), info_at(**how))


def outlines_of(content):
    """Name, area, bounds of each outline, and whether it cuts."""
    return [(one.name, one.geometry.area, one.geometry.bounds, one.cuts) for one in content.outlines]


def canonical_of(folder, source, info=None, mask_mpp=None):
    """Import a file; the path of its canonical form."""
    output = Path(folder) / "out" / "canonical.geojson"
    import_annotation(str(source), info or info_at(), str(output), settings(), mask_mpp=mask_mpp)
    return output


def level_0(output):
    return Annotation(output).mask((0, 0), SIZE, 1.0)


def refused(folder, source, mask_mpp=None):
    """The error of an import that must fail and leave nothing."""
    with pytest.raises(AnnotationError) as caught:
        canonical_of(folder, source, mask_mpp=mask_mpp)
    error = caught.value
    assert (error.slide, error.stage) == ("s1", "import_annotation")
    assert str(error) == f"slide s1, import_annotation: {error.finding}. Remedy: {error.remedy}."
    assert error.finding and error.remedy
    assert not list((Path(folder) / "out").glob("*")) and not list((Path(folder) / "out").glob(".*"))
    return error

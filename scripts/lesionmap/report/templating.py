"""What all HTML pages share: their frame, their style, and how they show numbers."""

import platform
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lesionmap.formatting import counted, duration, fixed, with_interval
from lesionmap.version import VERSION

SHARED = Path(__file__).parent / "templates/templating"


def page_templates(folder: Path) -> Environment:
    """The templates of a folder, which may extend ``base.html.j2``."""
    templates = Environment(
        loader=FileSystemLoader([folder, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"fixed": fixed, "with_interval": with_interval, "duration": duration, "counted": counted}
    made = datetime.now(UTC).date()
    templates.globals |= {"version": VERSION, "made": f"made on {made} on {platform.node()}"}
    return templates

"""Check content against a JSON schema, and describe what is wrong."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml


def read_schema(path: str | Path) -> dict[str, Any]:
    """Read a JSON schema that is written as YAML."""
    schema: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return schema


def problems_of(content: Any, schema: dict[str, Any]) -> Iterator[str]:
    """Each place where content violates a schema, what is wrong there, and the schema's description of it."""
    validator = jsonschema.Draft202012Validator(schema)
    for error in sorted(validator.iter_errors(content), key=lambda error: list(map(str, error.absolute_path))):
        place = ".".join(map(str, error.absolute_path))
        meaning = error.schema.get("description") if isinstance(error.schema, dict) else None
        yield f"{place + ': ' if place else ''}{error.message}{f' ({meaning})' if meaning else ''}"


def listed(problems: Sequence[str], most: int = 20) -> str:
    """Format problems as a bullet list of at most `most` entries."""
    shown = "".join(f"\n  - {problem}" for problem in problems[:most])
    return shown + (f"\n  … and {len(problems) - most} more" if len(problems) > most else "") + "\n"

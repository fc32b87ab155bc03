"""Check content against a JSON schema, and say in words what is wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml


def _problems(instance: Any, schema: dict[str, Any]) -> Iterator[str]:
    validator = jsonschema.Draft202012Validator(schema)
    for error in sorted(validator.iter_errors(instance), key=lambda error: list(map(str, error.absolute_path))):
        place = ".".join(map(str, error.absolute_path))
        meaning = error.schema.get("description") if isinstance(error.schema, dict) else None
        yield f"{place + ': ' if place else ''}{error.message}{f' ({meaning})' if meaning else ''}"


def _schema(path: str | Path) -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return schema


def _listed(problems: list[str], most: int = 20) -> str:
    shown = "".join(f"\n  - {problem}" for problem in problems[:most])
    return shown + (f"\n  … and {len(problems) - most} more" if len(problems) > most else "") + "\n"

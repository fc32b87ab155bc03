"""Small mutations of the pure modules, each of which a test of its module should notice; prints those that none does.

`make mutants` draws 50 of them (N=200 for more, SEED=1 for others). A survivor shows a test that is missing, or code
without effect.
"""

import argparse
import ast
import copy
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARY, TESTS = "scripts/lesionmap", "tests/unit"
PURE = ("geometry", "metrics", "maps", "tissue", "annotations", "inference/seams", "inference/settings", "stain/fit")
PURE += ("stain/profile", "stain/separation", "lesions/postprocessing", "run/conclusion", "run/quarantine_tables")
PURE += ("slides/damage", "training/best_epoch", "training/settings", "evaluation/curves", "formatting")
NEEDED = ("scripts", "tests", "config", "workflow", "envs", "Snakefile", "pyproject.toml", "README.md")
LIMIT_S = 900
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One changed expression: the file, its new text, and what is said of it."""

    path: Path
    text: str
    change: str


def mutants(path: Path) -> Iterator[Mutant]:
    """All mutants of a module."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    for node in ast.walk(ast.parse(source)):
        for changed in _changes(node):
            begin = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
            end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
            before, now = source.encode()[begin:end].decode(), f"({ast.unparse(changed)})"
            text = source.encode()[:begin].decode() + now + source.encode()[end:].decode()
            yield Mutant(path, text, f"{path.relative_to(ROOT)}:{node.lineno}: {before} → {now[1:-1]}")  # type: ignore[attr-defined]


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Other expressions in place of one: another operator, another number, no `not`, no minus."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node.operand
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1 if isinstance(node.value, int) else node.value * 1.25)
    operator = node.ops[0] if isinstance(node, ast.Compare) else getattr(node, "op", None)
    if type(operator) in SWAPS and not isinstance(node, ast.AugAssign):
        changed, swapped = copy.deepcopy(node), SWAPS[type(operator)]()
        if isinstance(changed, ast.Compare):
            changed.ops[0] = swapped  # type: ignore[call-overload]
        else:
            changed.op = swapped  # type: ignore[attr-defined]
        yield changed


def tests_of(path: Path) -> list[str]:
    """The tests that mirror a module, if there are any, then all of its folder."""
    place = Path(TESTS) / path.relative_to(ROOT / LIBRARY)
    mirrored = place.with_name(f"test_{place.name}")
    return [str(mirrored)] * (ROOT / mirrored).exists() + [str(place.parent)] * (path.parent != ROOT / LIBRARY)


def fails(tests: str, workspace: Path) -> bool:
    """Whether a test fails, or never ends."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-p", "no:cacheprovider", tests]
    try:
        return subprocess.run(command, cwd=workspace, capture_output=True, timeout=LIMIT_S).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def survives(mutant: Mutant, workspace: Path) -> bool:
    """Whether a mutant passes the tests of its module and of its folder."""
    target = workspace / mutant.path.relative_to(ROOT)
    target.write_text(mutant.text, encoding="utf-8")
    passed = not any(fails(tests, workspace) for tests in tests_of(mutant.path))
    shutil.copy(mutant.path, target)
    return passed


def main() -> None:
    """Draw mutants, try them, print the survivors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    library = ROOT / LIBRARY
    found = (library.glob(f"{name}/*.py") if (library / name).is_dir() else [library / f"{name}.py"] for name in PURE)
    every = [mutant for paths in found for path in sorted(paths) for mutant in mutants(path)]
    drawn = random.Random(asked.seed).sample(every, min(asked.count, len(every)))  # no secret
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        for name in NEEDED:
            copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copied(ROOT / name, workspace / name)
        for tests in sorted({tests_of(mutant.path)[0] for mutant in drawn}):
            if fails(tests, workspace):
                sys.exit(f"{tests} fails without a mutation; run: make test")
        survivors = 0
        for mutant in drawn:
            if survives(mutant, workspace):
                survivors += 1
                print(f"survived  {mutant.change}", flush=True)
    print(f"{len(drawn) - survivors} of {len(drawn)} mutants were noticed; the modules have {len(every)}")


if __name__ == "__main__":
    main()

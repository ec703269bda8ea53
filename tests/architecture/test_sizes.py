import ast
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, c_files, python_files

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def long_functions(source: str) -> list[str]:
    """Return the functions over the limit, from `def` to their last line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if num_lines > MAX_FUNCTION_LINES:
                found.append(f"{node.name} ({num_lines} lines)")
    return found


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_is_too_long() -> None:
    sizes = {relative(path): len(path.read_text().splitlines()) for path in (*python_files(), *c_files())}

    assert any(path.endswith(".c") for path in sizes)
    assert len(sizes) > 50, "the files were not found"
    assert {path: size for path, size in sizes.items() if size > MAX_FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    found = {relative(path): long_functions(path.read_text()) for path in python_files()}

    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(("num_lines", "is_long"), [(MAX_FUNCTION_LINES, False), (MAX_FUNCTION_LINES + 1, True)])
def test_the_measure_itself_tells_long_from_short(num_lines: int, is_long: bool) -> None:
    source = "async def f():\n" + "    pass\n" * (num_lines - 1)

    assert bool(long_functions(source)) is is_long

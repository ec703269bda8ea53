"""`except Exception` hides defects: it stands where a defect must become an answer, and nowhere else."""

import ast

from tests.architecture.source import ROOT, python_files

# HTTP has a registered handler instead; see transport/error_handlers.py.
ALLOWED = {
    "audiofoundation/transport/grpc.py",
    "audiofoundation/jobs/runner.py",
    "audiofoundation/features/custom.py",  # calls a user's own functions
    "audiofoundation/audio/sandbox/zygote.py",  # a fork that ends itself, whatever happened in it
}
BROAD = {"Exception", "BaseException"}


def swallows_everything(source: str) -> bool:
    """Tell whether a handler catches any exception and does not pass it on."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        is_broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in BROAD)
        passes_on = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
        if is_broad and not passes_on:
            return True
    return False


def test_nobody_swallows_every_exception() -> None:
    files = [path for path in python_files() if path.relative_to(ROOT).parts[0] in ("audiofoundation", "services")]
    found = {str(path.relative_to(ROOT)) for path in files if swallows_everything(path.read_text())}

    assert found <= ALLOWED


def test_the_check_itself_sees_what_it_looks_for() -> None:
    assert swallows_everything("try:\n    f()\nexcept Exception:\n    pass")
    assert swallows_everything("try:\n    f()\nexcept:\n    pass")
    assert not swallows_everything("try:\n    f()\nexcept BaseException:\n    g()\n    raise")
    assert not swallows_everything("try:\n    f()\nexcept OSError:\n    pass")

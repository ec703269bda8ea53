"""Counts follow the items only while nobody else writes an item's state."""

import ast

from tests.architecture.source import ROOT, python_files

ALLOWED = {"audiofoundation/catalog/item_states.py"}


def writes_states(source: str) -> bool:
    """Tell whether something inserts items, or updates them and names `state` among the values."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name.endswith("insert") and [ast.unparse(arg) for arg in node.args] == ["Item"]:
            return True
        names_state = any(keyword.arg in ("state", None) for keyword in node.keywords)
        if name.endswith(".values") and "update(Item)" in name and names_state:
            return True
    return False


def test_only_one_module_writes_item_states() -> None:
    files = [path for path in python_files() if path.relative_to(ROOT).parts[0] in ("audiofoundation", "services")]
    found = {str(path.relative_to(ROOT)) for path in files if writes_states(path.read_text())}
    assert found == ALLOWED


def test_the_check_itself_sees_what_it_looks_for() -> None:
    assert writes_states("update(Item).where(x).values(state=1)")
    assert writes_states("sqlite.insert(Item)")
    assert not writes_states("update(Item).where(x).values(title=1)")

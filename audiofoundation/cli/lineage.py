"""`audiofoundation lineage`: what a thing comes from and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.tree import Tree

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption, path_to
from audiofoundation.cli.output import JsonOption, note, print_json, print_renderable

_HELP = """Show what a thing comes from and what came of it, from the source to the models.

ID is the id of an item, asset, shard, dataset, run, checkpoint or model, a segment's key, the hash of a manifest or
recording, a model's name, or a source. What came of a thing stands where it is met first; elsewhere … stands for it.
`affected` models learned from a recording that was taken down since.

Examples:

  audiofoundation lineage item_0123

  audiofoundation lineage https://example.org/a.ogg --json
"""
_MAX_BRANCHES = 50


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("lineage", help=_HELP)(lineage)


def lineage(
    name: Annotated[str, typer.Argument(metavar="ID", help="What to look at.")],
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    with PlatformClient(url, data_dir=data_dir) as client:
        found = client.get(path_to("lineage", name))
    if is_json:
        print_json(found)
        return
    print_renderable(_to_tree(found))
    if found["truncated"]:
        note("there is more than is shown")


def _to_tree(found: Mapping[str, Any]) -> Tree:
    """Return the nodes below those that they were made from."""
    nodes: dict[str, Mapping[str, Any]] = {node["id"]: node for node in found["nodes"]}
    made: dict[str, list[str]] = {}
    for parent, child in found["edges"]:
        made.setdefault(parent, []).append(child)
    children = {child for _, child in found["edges"]}
    tree = Tree(escape(str(found["id"])))
    _Growth(nodes, made).grow(tree, [name for name in nodes if name not in children])
    return tree


@dataclass(slots=True)
class _Growth:
    """Puts nodes into a tree; what came of a thing is shown where the thing is met first.

    Attributes:
        nodes: by id.
        made: what came of each, by id.
        shown: ids of nodes whose branches are in the tree.
    """

    nodes: Mapping[str, Mapping[str, Any]]
    made: Mapping[str, Sequence[str]]
    shown: set[str] = field(default_factory=set)

    def grow(self, tree: Tree, names: Sequence[str]) -> None:
        """Add branches with all that came of them."""
        for name in names[:_MAX_BRANCHES]:
            node, following = self.nodes[name], self.made.get(name, ())
            label = "" if node["label"] == name else f"  {node['label']}"
            state = f"  ({node['state']})" if node["state"] else ""
            is_above = bool(following) and name in self.shown
            branch = tree.add(escape(f"{node['kind']} {name}{label}{state}{'  …' if is_above else ''}"))
            self.shown.add(name)
            if not is_above:
                self.grow(branch, following)
        if len(names) > _MAX_BRANCHES:
            tree.add(f"… {len(names) - _MAX_BRANCHES} more")

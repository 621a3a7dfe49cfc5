"""The folders of the package use one another in one direction only (see CONTRIBUTING.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import cowcloop

PACKAGE = Path(cowcloop.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
#: The lowest first; the modules beside the folders are below them all.
FOLDERS = (
    *("iso9660", "ext2", "picture", "cluster", "registry", "server", "mount"),
    *("bootable", "bench", "cli"),
)
#: Programs of their own, the one module that looks into ISO images for the rest, and those whose
#: work may be spread over a cluster.
ABOVE = (
    "cowcloop.__main__",
    "cowcloop.creating",
    "cowcloop.image",
    "cowcloop.shutdown",
    "cowcloop.source",
)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All that runs: what only a type checker sees is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _nodes(node)


def _imported(module: str) -> set[str]:
    """The modules that one imports, at its top or in a function."""
    found = set()
    for node in _nodes(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            words = module.split(".") if MODULES[module].name == "__init__.py" else None
            package = words or module.split(".")[:-1]
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for name in node.names:
                whole = f"{base}.{name.name}"
                found.add(whole if whole in MODULES else base)
    return {name for name in found if name in MODULES} - {module}


def test_no_modules_import_each_other() -> None:
    graph = {module: _imported(module) for module in MODULES}
    assert sum(map(len, graph.values())) > 200
    # CycleError names the modules of a circle.
    TopologicalSorter(graph).prepare()


def test_a_folder_uses_only_those_below_it() -> None:
    def floor(module: str) -> int:
        name = module.split(".")[1] if "." in module else ""
        return FOLDERS.index(name) if name in FOLDERS else -1

    upward = {
        (module, used)
        for module in MODULES
        if module not in ABOVE
        for used in _imported(module)
        if floor(used) > floor(module)
    }
    assert upward == set()
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(FOLDERS)

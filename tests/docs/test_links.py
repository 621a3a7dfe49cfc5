"""Links between the pages lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import pages
from support.programs import ROOT

PAGES = pages.pages()


def dead(path: Path) -> list[str]:
    """The links of a page that lead nowhere. Those into the world are left alone."""
    found = []
    page = pages.read(path)
    for line, target in page.links:
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        goal = (path.parent / name).resolve() if name else path
        if not goal.exists():
            found.append(f"{path}:{line}: {target}: no such file")
        elif anchor and goal.suffix == ".md" and anchor not in pages.read(goal).anchors:
            found.append(f"{path}:{line}: {target}: no such heading")
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links(path: Path) -> None:
    assert dead(path) == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        path = todo.pop()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        for _, target in pages.read(path).links:
            goal = (path.parent / target.partition("#")[0]).resolve()
            if "://" not in target and goal.is_file():
                todo.append(goal)
    assert {path.relative_to(ROOT) for path in PAGES} - {
        path.relative_to(ROOT) for path in reached
    } == set()


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Top\n[a](gone.md) [b](#top) [c](#bottom) [d](https://example.com)\n")
    assert [line.rpartition(": ")[2] for line in dead(page)] == ["no such file", "no such heading"]

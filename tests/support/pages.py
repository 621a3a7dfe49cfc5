"""The project's Markdown pages: their code blocks, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.programs import ROOT

_FENCE = re.compile(r"^(\s*)```+(\S*)\s*$")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
_NEEDS = re.compile(r"^<!-- needs: (.*) -->$")
# What a command says on standard error when nothing has failed.
_NOTE = re.compile(r"^cowcloop: (?:warning: |.*: unmounted; )")
#: Stands for any text within a line; alone in a line, for any number of lines.
ANYTHING = "..."


@dataclass
class Block:
    """A fenced block of code."""

    language: str
    line: int
    lines: list[str] = field(default_factory=list)


@dataclass
class Step:
    """One command of a transcript, with the lines that it must print."""

    line: int
    command: str
    expected: list[str] = field(default_factory=list)

    @property
    def fails(self) -> bool:
        """Whether an error is what the page shows."""
        return any(
            line.startswith("cowcloop: ") and not _NOTE.match(line) for line in self.expected
        )


@dataclass
class Page:
    """One page, taken apart."""

    path: Path
    blocks: list[Block] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    links: list[tuple[int, str]] = field(default_factory=list)
    #: What a machine must have for the page's transcripts, from `<!-- needs: … -->`.
    needs: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The path in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    def steps(self) -> list[Step]:
        """The commands of all ``console`` blocks, in their order."""
        steps: list[Step] = []
        for block in self.blocks:
            if block.language != "console":
                continue
            first = len(steps)
            for offset, text in enumerate(block.lines):
                line = block.line + 1 + offset
                if text.startswith("$ "):
                    steps.append(Step(line, text[2:]))
                elif len(steps) == first:
                    raise ValueError(f"{self.name}:{line}: output without a command")
                elif text.startswith("> ") and not steps[-1].expected:
                    steps[-1].command += "\n" + text[2:]
                else:
                    steps[-1].expected.append(text)
        return steps


def pages() -> list[Path]:
    """Every page of the project."""
    return sorted(
        [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("contrib/**/*.md")]
    )


def read(path: Path) -> Page:
    """Takes one page apart."""
    page = Page(path)
    block: Block | None = None
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(text)
        if block is not None:
            if fence and not fence[2]:
                block = None
            else:
                block.lines.append(text)
        elif fence:
            block = Block(fence[2], number)
            page.blocks.append(block)
        elif heading := _HEADING.match(text):
            page.anchors.add(_anchor(heading[1]))
        elif needs := _NEEDS.match(text):
            page.needs += needs[1].split()
        else:
            plain = re.sub(r"`[^`]*`", "", text)
            page.links += [(number, target) for target in _LINK.findall(plain)]
    if block is not None:
        raise ValueError(f"{path}:{block.line}: the block has no end")
    return page


def _anchor(heading: str) -> str:
    """The name that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def matches(expected: list[str], found: list[str]) -> bool:
    """Whether output is what a page shows, `...` standing for anything."""

    def pattern(lines: list[str]) -> Iterator[str]:
        for line in lines:
            if line.strip() == ANYTHING:
                yield r"(?:.*\n)*?"
            else:
                words = re.split(r"\s+", line.strip())
                parts = (".*".join(map(re.escape, word.split(ANYTHING))) for word in words)
                yield r"\s*" + r"\s+".join(parts) + r"\s*?\n"

    text = "".join(line + "\n" for line in found)
    return re.fullmatch("".join(pattern(expected)), text) is not None

#!/usr/bin/env python3
"""Makes THIRD-PARTY-LICENSES.txt: the licences of everything in the wheel's libraries.

Run it after a change of Cargo.lock. It reads the sources that cargo has downloaded.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTICES = ROOT / "THIRD-PARTY-LICENSES.txt"

# C sources that crates carry, by their folder there.
_BUNDLED = {
    "libz-ng-sys": ("zlib-ng", "src/zlib-ng/LICENSE.md"),
    "libdeflate-sys": ("libdeflate", "libdeflate/COPYING"),
    "liblzma-sys": ("liblzma (of XZ Utils)", "xz/COPYING*"),
    "zstd-sys": ("zstd", "zstd/LICENSE"),
}
_TEXTS = re.compile(r"^(licen[cs]e|copying|unlicense|copyright|notice)", re.IGNORECASE)


@dataclass(frozen=True)
class Crate:
    """A crate that is linked, or that generates code that is linked."""

    name: str
    version: str
    licence: str
    folder: Path


def crates() -> list[Crate]:
    """The crates in the two libraries, without those that only build or test them."""
    cargo = ["cargo", "metadata", "--format-version=1", "--locked", "--offline"]
    target = ["--filter-platform", "x86_64-unknown-linux-gnu"]
    done = subprocess.run([*cargo, *target], cwd=ROOT, capture_output=True, check=True)
    metadata = json.loads(done.stdout)
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    todo, reached = list(metadata["workspace_members"]), set()
    while todo:
        here = todo.pop()
        if here in reached:
            continue
        reached.add(here)
        for dependency in nodes[here]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                todo.append(dependency["pkg"])
    return sorted(
        (
            Crate(
                package["name"],
                package["version"],
                package["license"] or "",
                Path(package["manifest_path"]).parent,
            )
            for package in metadata["packages"]
            if package["id"] in reached and package["source"] is not None
        ),
        key=lambda crate: (crate.name, crate.version),
    )


def texts(crate: Crate) -> dict[str, str]:
    """The licence texts of a crate and of the C library in it, by title."""
    found = {}
    files = sorted(path for path in crate.folder.iterdir() if _TEXTS.match(path.name))
    mit = [path for path in files if "mit" in path.name.lower()]
    for path in (mit or files) if "MIT" in crate.licence else files:
        if path.is_file():
            found[f"{crate.name} ({crate.licence})"] = path.read_text(errors="replace").strip()
    name, pattern = _BUNDLED.get(crate.name, ("", ""))
    for path in sorted(crate.folder.glob(pattern)) if pattern else []:
        if "GPL" not in path.name:  # of programs that are not linked
            found[f"{name}: {path.name}"] = path.read_text(errors="replace").strip()
    return found


def main() -> None:
    """Write the file: each text once, with the names of all crates that it is for."""
    owners: dict[str, list[str]] = {}
    for crate in crates():
        found = texts(crate) or {f"{crate.name} ({crate.licence})": "(no text in the crate)"}
        for title, text in found.items():
            owners.setdefault(re.sub(r"[ \t]+$", "", text, flags=re.M), []).append(title)
    line = "=" * 78
    parts = ["Licences of what cowcloop's libraries contain. THIRD-PARTY.md says what is what."]
    for text, titles in owners.items():
        parts.append("\n".join([line, *dict.fromkeys(titles), line, "", text]))
    NOTICES.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

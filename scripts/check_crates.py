#!/usr/bin/env python3
"""Checks the crates of Cargo.lock by deny.toml: licences, sources, second versions.

The part of `cargo deny check` that needs neither the network nor another program.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def licensed(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be met; parentheses are read strictly rather than exactly."""
    return all(
        any(one.strip() in allowed for one in re.split(r" OR |/", part.strip("() ")))
        for part in expression.split(" AND ")
    )


def faults(packages: list[dict[str, Any]], locked: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with the crates that are built, and with those of the lock file."""
    policy = tomllib.loads((ROOT / "deny.toml").read_text(encoding="utf-8"))
    allowed = set(policy["licenses"]["allow"])
    skipped = {entry["crate"] for entry in policy["bans"]["skip"]}
    for package in packages:
        if not licensed(package["license"] or "", allowed):
            yield f"{package['name']}: licence {package['license']!r} is not allowed"
    versions: dict[str, list[str]] = defaultdict(list)
    for package in locked:
        name, version = package["name"], package["version"]
        if package.get("source", CRATES_IO) != CRATES_IO:
            yield f"{name}: comes from {package['source']}, not from crates.io"
        elif "source" in package and "checksum" not in package:
            yield f"{name}: has no checksum"
        if f"{name}@{version}" not in skipped:
            versions[name].append(version)
    for name, found in versions.items():
        if len(found) > 1:
            yield f"{name}: is there in several versions: {', '.join(found)}"
    for name in sorted(skipped - {f"{p['name']}@{p['version']}" for p in locked}):
        yield f"{name}: is skipped in deny.toml, but not in Cargo.lock"


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--offline"]
    command += ["--filter-platform", "x86_64-unknown-linux-gnu"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))["package"]
    found = [*faults(json.loads(done.stdout)["packages"], locked)]
    for line in found:
        print(f"check_crates: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Pages that are made from something are up to date, and manual pages are sound."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from support.programs import ROOT, program, run

MAN = ROOT / "docs/man/data/share/man"
MANUALS = sorted(path for path in MAN.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["markdown", "manual"])
def test_the_reference_is_up_to_date(name: str) -> None:
    script = runpy.run_path(str(ROOT / "scripts/make_reference.py"))
    page = script["REFERENCE" if name == "markdown" else "MANUAL"]
    assert page.read_text() == script[name](), "run scripts/make_reference.py"


@pytest.mark.parametrize("path", MANUALS, ids=lambda path: path.name)
def test_manual_pages(path: Path) -> None:
    man = program("man", "man-db")
    done = run(man, "--warnings", "-l", path, env={"MANWIDTH": "80", "LC_ALL": "C.UTF-8"})
    assert done.stderr == b""
    text = re.sub(r".\x08", "", done.stdout.decode())
    name = path.stem.upper()
    assert text.startswith(f"{name}({path.suffix[1:]})")
    assert max(map(len, text.splitlines())) <= 100
    if shutil.which("mandoc"):
        run("mandoc", "-T", "lint", "-W", "warning", path)


def test_the_plugin_manual_names_every_parameter() -> None:
    source = (ROOT / "rust/server/src/parameters/mod.rs").read_text()
    manual = (MAN / "man1/nbdkit-cowcloop-plugin.1").read_text().replace("\\-", "-")
    named = set(re.findall(r'^            "([a-z-]+)" =>', source, re.MULTILINE))
    assert len(named) > 10
    assert {name for name in named if f"{name}=" not in manual} == set()


def test_the_notices_name_every_crate() -> None:
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not installed")
    script = runpy.run_path(str(ROOT / "scripts/make_notices.py"))
    try:
        crates = script["crates"]()
    except subprocess.CalledProcessError:
        pytest.skip("the crates have not been downloaded")
    text = script["NOTICES"].read_text()
    missing = [crate.name for crate in crates if f"\n{crate.name} (" not in text]
    assert missing == [], "run scripts/make_notices.py"


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT OR Apache-2.0", True),
        ("MIT/Apache-2.0", True),
        ("GPL-3.0 OR MIT", True),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0", False),
        ("MIT AND LGPL-2.1", False),
        ("", False),
    ],
)
def test_licences_of_crates(expression: str, good: bool) -> None:
    script = runpy.run_path(str(ROOT / "scripts/check_crates.py"))
    allowed = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"}
    assert script["licensed"](expression, allowed) == good


def test_crates_that_are_refused() -> None:
    script = runpy.run_path(str(ROOT / "scripts/check_crates.py"))
    io = script["CRATES_IO"]
    locked = [
        {"name": "a", "version": "1.0.0", "source": io, "checksum": "x"},
        {"name": "a", "version": "2.0.0", "source": io, "checksum": "x"},
        {"name": "b", "version": "1.0.0", "source": "git+https://example.org/b", "checksum": "x"},
        {"name": "c", "version": "1.0.0", "source": io},
    ]
    packages = [{"name": "d", "license": "GPL-2.0"}, {"name": "e", "license": None}]
    found = [line for line in script["faults"](packages, locked) if "skipped" not in line]
    assert [line[0] for line in found] == ["d", "e", "b", "c", "a"]

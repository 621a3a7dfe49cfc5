"""The page about virtual machines: libvirt takes what it shows."""

from __future__ import annotations

from pathlib import Path

from support import pages
from support.programs import ROOT, program, run

PAGE = ROOT / "docs/howto/machines.md"


def test_libvirt_takes_the_domain(tmp_path: Path) -> None:
    program("xmllint", "libxml2-utils")
    validate = program("virt-xml-validate", "libvirt-clients")
    domains = [block for block in pages.read(PAGE).blocks if block.language == "xml"]
    assert len(domains) == 1
    path = tmp_path / "domain.xml"
    path.write_text("\n".join(domains[0].lines))
    run(validate, path, "domain")
    path.write_text(path.read_text().replace("<target", "<goal").replace("</target", "</goal"))
    assert run(validate, path, "domain", expect=None).returncode != 0

"""The page about virtual machines: libvirt and qemu take what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import pages
from support.programs import ROOT, find, run

PAGE = ROOT / "docs/howto/machines.md"


def test_libvirt_takes_the_domain(tmp_path: Path) -> None:
    validate = find("virt-xml-validate")
    if validate is None or find("xmllint") is None:
        pytest.skip("needs virt-xml-validate and xmllint (libvirt-clients, libxml2-utils)")
    domains = [block for block in pages.read(PAGE).blocks if block.language == "xml"]
    assert len(domains) == 1
    path = tmp_path / "domain.xml"
    path.write_text("\n".join(domains[0].lines))
    run(validate, path, "domain")
    path.write_text(path.read_text().replace("<target", "<goal").replace("</target", "</goal"))
    assert run(validate, path, "domain", expect=None).returncode != 0

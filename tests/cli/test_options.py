"""Each option of a device is written once, and found wherever it can be given."""

from __future__ import annotations

import inspect
import re

import cowcloop
import pytest
from cowcloop import options
from cowcloop.options import DeviceKeywords, ServedKeywords, ServerKeywords, Tls
from cowcloop.server import ServeOptions
from cowcloop.server.address import UnixAddress
from cowcloop.server.command import nbdkit_command
from cowcloop.server.options import absolute
from support.programs import ROOT
from support.programs import cowcloop as program_cowcloop

_SAMPLES: dict[options.Kind, tuple[object, str]] = {
    options.FLAG: (True, "true"),
    options.SIZE: ("4K", "4096"),
    options.COUNT: (7, "7"),
    options.PATH: (b"/p", "/p"),
    options.DIRECTORY: (b"/d", "/d"),
    options.TCP: (1, "1"),
    options.CHOICE: ("all", "all"),
    options.DIGEST: ("0" * 64, "0" * 64),
    options.ENDPOINT: ("m.sock", absolute("m.sock")),
}


@pytest.mark.parametrize(
    ("command", "classes"),
    [
        ("serve", (ServerKeywords, Tls)),
        ("attach", (ServerKeywords, Tls)),
        ("mount", (ServedKeywords,)),
    ],
)
def test_the_commands_and_their_pages_have_them(command: str, classes: tuple[type, ...]) -> None:
    shown = program_cowcloop(command, "--help").stdout.decode()
    page = (ROOT / "docs/reference.md").read_text()
    section = page.split(f"## cowcloop {command}\n")[1].split("\n## ")[0]
    flags = [option.flag for each in classes for option in options.table(each).values()]
    assert len(flags) == len(set(flags)) >= 9
    for flag in flags:
        assert re.search(rf"^  (-., )?{flag}\b", shown, re.MULTILINE), flag
        assert re.search(rf"^\| `(-., )?{flag}\b", section, re.MULTILINE), flag


@pytest.mark.parametrize(
    ("function", "keywords"),
    [(cowcloop.open, DeviceKeywords), (cowcloop.serve, ServerKeywords)],
)
def test_the_functions_have_them(function: object, keywords: type) -> None:
    assert callable(function)
    assert set(options.table(keywords)) <= set(inspect.signature(function).parameters)
    with pytest.raises(TypeError, match=r"\(\) got an unexpected keyword argument 'chache'"):
        function("image", chache="64M")


@pytest.mark.parametrize("name", [n for n, o in options.table(ServerKeywords).items() if o.plugin])
def test_the_plugin_is_given_them(name: str) -> None:
    option = options.table(ServerKeywords)[name]
    given, word = _SAMPLES[option.kind]
    chosen = ServeOptions.of("/i", **{name: given})  # type: ignore[arg-type]
    parameter = option.flag.removeprefix("--")
    assert f"{parameter}={word}" in nbdkit_command(chosen, UnixAddress("/s"), foreground=True)
    sources = (ROOT / "rust/server/src/parameters").glob("*.rs")
    assert any(f'"{parameter}" =>' in source.read_text() for source in sources)

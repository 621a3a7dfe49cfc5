"""The plugin's events and nbdkit's lines in our words, and the command line that it is given."""

from __future__ import annotations

from pathlib import Path

import pytest
from cowcloop.errors import CowcloopError
from cowcloop.options import Tls
from cowcloop.server.address import Address, TcpAddress, UnixAddress
from cowcloop.server.command import nbdkit_command
from cowcloop.server.events import Ready, parse
from cowcloop.server.messages import Message, translate
from cowcloop.server.options import ServeOptions
from cowcloop.server.parameters import Channels

TYPED = {"/home/a/i.img": "i.img", "/home/a/i.img.cow": "i.img.cow"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "nbdkit: cowcloop[1]: error: /home/a/i.img: block 3: bad checksum",
            Message("error", "i.img: block 3: bad checksum"),
        ),
        ("nbdkit: error: /home/a/i.img.cow: in use", Message("error", "i.img.cow: in use")),
        ("nbdkit: cowcloop: warning: slow", Message("warning", "slow")),
        (
            "nbdkit: error: warning: /home/a/i.img.cow: no holes here",
            Message("warning", "i.img.cow: no holes here"),
        ),
        ("nbdkit: cowcloop[2]: debug: pread", Message("debug", "pread")),
        (
            "/usr/bin/nbdkit: unrecognized option '--foo'",
            Message("error", "unrecognized option '--foo'"),
        ),
        (
            "nbdkit: socket error: Address already in use",
            Message("error", "127.0.0.1:1: another server listens there"),
        ),
        (
            "bind: Cannot assign requested address",
            Message("error", "127.0.0.1:1: Cannot assign requested address"),
        ),
        (
            "nbdkit: getaddrinfo: nosuch: 7792: Name or service not known",
            Message("error", "nosuch: Name or service not known"),
        ),
        ("nbdkit: unable to bind to any TCP/IP sockets", None),
        (
            "nbdkit: cowcloop[3]: error: write: sending newstyle handshake: Broken pipe",
            Message("debug", "write: sending newstyle handshake: Broken pipe"),
        ),
        (
            "/nope/s: No such file or directory",
            Message("error", "/nope/s: No such file or directory"),
        ),
        ("", None),
    ],
)
def test_lines(line: str, message: Message | None) -> None:
    assert translate(line, TYPED, "127.0.0.1:1") == message


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b'{"event":"ready","pid":4711}', Ready(4711)),
        (
            b'{"event":"error","text":"/home/a/i.img.cow: in use"}',
            Message("error", "i.img.cow: in use"),
        ),
        (b'{"event":"warning","text":"slow"}', Message("warning", "slow")),
        (
            b'{"event":"request-failed","text":"/home/a/i.img: gone"}',
            Message("error", "i.img: gone"),
        ),
        (b'{"event":"client-refused","text":"no"}', Message("error", "no")),
        (b'{"event":"ended"}', None),
        (b'{"event":"of a later version","text":"x"}', None),
        (b"", None),
        (b"nbdkit: what", Message("debug", "not an event: nbdkit: what")),
        (b"[]", Message("debug", "not an event: []")),
        (b'{"event":"ready"}', Message("debug", 'not an event: {"event":"ready"}')),
    ],
)
def test_events(line: bytes, event: Ready | Message | None) -> None:
    assert parse(line, TYPED) == event


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        (UnixAddress("/run/a b/s?&#%"), "nbd+unix:///?socket=/run/a%20b/s%3F%26%23%25"),
        (TcpAddress("127.0.0.1", 1), "nbd://127.0.0.1:1"),
        (TcpAddress("::1", 1), "nbd://[::1]:1"),
        (TcpAddress("0.0.0.0", 1), "nbd://127.0.0.1:1"),
        (TcpAddress("*", 1), "nbd://127.0.0.1:1"),
        (TcpAddress("::", 1), "nbd://[::1]:1"),
    ],
)
def test_uris(address: Address, uri: str) -> None:
    assert address.uri() == uri
    assert address.uri(tls=True) == uri.replace("nbd", "nbds", 1)


def test_a_long_socket_path_is_refused_before_anything_starts() -> None:
    path = "/tmp/" + "x" * 103
    with pytest.raises(CowcloopError, match="at most 107 bytes, not 108"):
        UnixAddress(path).check()


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ServeOptions.of(
        "i",
        cows=("../low", ":memory:"),
        read_only=True,
        strict=True,
        cache=65536,
        size=1 << 33,
        tls=Tls(mode="require", psk="keys", verify_peer=True),
        nbdkit_args=("--filter=delay", "rdelay=1"),
    )
    channels = Channels(control="/c", events=7, lifeline=8)
    command = nbdkit_command(options, TcpAddress("::1", 5), channels, foreground=True)
    assert command[0].endswith("nbdkit")
    plugin = next(n for n, word in enumerate(command) if word.endswith("plugin.so"))
    assert set(command[1:plugin]) >= {"-f", "-r", "--tls=require", f"--tls-psk={tmp_path}/keys"}
    assert command[1:5] == ["-i", "::1", "-p", "5"]
    assert command[plugin + 1 : plugin + 5] == [
        "events=7",
        f"image={tmp_path}/i",
        f"cow={tmp_path}/../low",
        "cow=:memory:",
    ]
    assert set(command[plugin + 5 : -2]) == {
        "cache=65536",
        "size=8589934592",
        "strict=true",
        "read-only=true",
        "create=false",
        "control=/c",
        "lifeline=8",
    }
    # The user's own come last: nbdkit's options and a filter's parameters both work there.
    assert command[-2:] == ["--filter=delay", "rdelay=1"]

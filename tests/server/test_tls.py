"""Options that promise encryption keep it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import nbdclient, rawnbd
from support.programs import cowcloop
from support.server import Server


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.psk"
    path.write_text("anna:" + "5a" * 32 + "\n")
    path.chmod(0o600)
    return path


def test_keys_without_a_mode_let_no_client_in_unencrypted(image: Path, keys: Path) -> None:
    server = Server(image, "--tls-psk", keys)
    assert server.uri.startswith("nbds")
    with pytest.raises((rawnbd.Refused, EOFError, ConnectionError)):
        rawnbd.start(server.uri)
    nbd = nbdclient.module()
    if nbd.NBD().supports_tls():
        handle = nbd.NBD()
        handle.set_tls(nbd.TLS_REQUIRE)
        handle.set_tls_psk_file(str(keys))
        handle.set_tls_username("anna")
        handle.connect_unix(str(server.socket))
        assert handle.get_tls_negotiated()
        handle.shutdown()
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--tls", "off", "--tls-psk", "k"), "in the clear"),
        (("--tls", "off", "--tls-certificates", "d"), "in the clear"),
        (("--tls", "off", "--tls-verify-peer"), "in the clear"),
        (("--tls", "on", "--tls-verify-peer"), "needs require"),
        (("--", "--tls-psk=k"), "before the --"),
        (("--", "--tls=on"), "before the --"),
    ],
)
def test_what_would_break_the_promise_is_refused(
    image: Path, words: tuple[str, ...], says: str
) -> None:
    said = cowcloop("serve", image, *words, expect=2).stderr.decode()
    assert says in said


@pytest.mark.parametrize(
    "option", [("--tls-psk", "k"), ("--tls-certificates", "d"), ("--tls-verify-peer",)]
)
def test_each_implies_tls(image: Path, option: tuple[str, ...]) -> None:
    shown = cowcloop("serve", image, *option, "--print-command").stdout.decode()
    assert "--tls=require" in shown

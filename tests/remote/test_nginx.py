"""A real web server: ranges, ETags, TLS with a private authority, basic authentication."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cowcloop
import pytest
from support.cloop import build
from support.programs import cowcloop as run_cowcloop
from support.programs import program, refused, run
from support.server import free_port, wait_until

CONFIG = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl http2;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        root {folder}/root;
        location /private/ {{
            auth_basic "images";
            auth_basic_user_file {folder}/users;
        }}
    }}
}}
"""


def certificates(folder: Path) -> None:
    """An authority, and a certificate of it for 127.0.0.1."""
    openssl = program("openssl", "openssl")
    key = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
    run(
        *(openssl, "req", "-x509", *key, "-subj", "/CN=Our own authority"),
        *("-addext", "keyUsage=keyCertSign", "-addext", "basicConstraints=critical,CA:TRUE"),
        *("-keyout", folder / "ca.key", "-out", folder / "ca.pem"),
    )
    run(
        *(openssl, "req", *key, "-subj", "/CN=127.0.0.1"),
        *("-keyout", folder / "server.key", "-out", folder / "server.csr"),
    )
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    run(
        *(openssl, "x509", "-req", "-days", "2", "-in", folder / "server.csr"),
        *("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial"),
        *("-extfile", folder / "extensions", "-out", folder / "server.pem"),
    )


class Nginx:
    """A running one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plain, self.tls = free_port(), free_port()

    def url(self, path: str, *, tls: bool = False, login: str = "") -> str:
        """The URL of a path below the root."""
        scheme, port = ("https", self.tls) if tls else ("http", self.plain)
        return f"{scheme}://{login}127.0.0.1:{port}/{path}"

    def requests(self) -> list[str]:
        """The lines of the log."""
        return (self.folder / "access.log").read_text().splitlines()


@pytest.fixture
def nginx(tmp_path: Path, device: bytes) -> Iterator[Nginx]:
    """nginx with a compressed image, one that takes a password, and a raw one."""
    binary = program("nginx", "nginx-light")
    folder = tmp_path / "nginx"
    for name in ("root/private", "body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (folder / name).mkdir(parents=True)
    # Its workers are of another user where it is started by root.
    for path in (tmp_path.parent, tmp_path, folder, folder / "root", folder / "root/private"):
        with contextlib.suppress(PermissionError):
            path.chmod(0o755)
    certificates(folder)
    (folder / "root/a.img").write_bytes(build(device))
    (folder / "root/private/a.img").write_bytes(build(device))
    (folder / "users").write_text("me:{PLAIN}s3cret\n")
    made = Nginx(folder)
    config = CONFIG.format(folder=folder, plain=made.plain, tls=made.tls)
    if os.geteuid() == 0:
        config = "user root;\n" + config
    (folder / "conf").write_text(config)
    command = [binary, "-c", str(folder / "conf"), "-p", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wait_until((folder / "pid").exists, "nginx to start")
        yield made
        process.terminate()
        process.wait()


def test_plain(nginx: Nginx, device: bytes, cache: Path) -> None:
    with cowcloop.open(nginx.url("a.img")) as disk:
        assert disk.read()[: len(device)] == device
    assert all('" 206 ' in line for line in nginx.requests())


def test_tls_of_a_private_authority(nginx: Nginx, device: bytes, cache: Path) -> None:
    url = nginx.url("a.img", tls=True)
    refused("info", url, "--timeout", "1", says="certificate")
    with cowcloop.open(url, ca_file=nginx.folder / "ca.pem") as disk:
        assert disk.read()[: len(device)] == device
    assert any("HTTP/2.0" in line for line in nginx.requests())
    refused("info", url, "--ca-file", nginx.folder / "nothing", says=("--ca-file", "No such file"))
    (nginx.folder / "empty").write_text("")
    refused("info", url, "--ca-file", nginx.folder / "empty", says="no certificate in it")


def test_a_password(nginx: Nginx, device: bytes, cache: Path) -> None:
    line = refused("info", nginx.url("private/a.img", login="me:wr0ng@"), says="401 Unauthorized")
    assert "wr0ng" not in line
    with cowcloop.open(nginx.url("private/a.img", login="me:s3cret@")) as disk:
        assert disk.read()[: len(device)] == device


def test_a_replaced_image_is_noticed(nginx: Nginx, device: bytes, cache: Path) -> None:
    with cowcloop.open(nginx.url("a.img")) as disk:
        disk.pread(100, 0)
        other = nginx.folder / "root/new"
        other.write_bytes(build(device[::-1]))
        os.utime(other, (1, 1))
        other.rename(nginx.folder / "root/a.img")
        with pytest.raises(OSError, match="has changed"):
            disk.pread(100, 900_000)


def test_what_is_missing_or_empty(nginx: Nginx, cache: Path) -> None:
    refused("info", nginx.url("nothing"), says="404 Not Found")
    (nginx.folder / "root/empty").write_bytes(b"")
    refused("info", nginx.url("empty"), says="empty")
    run_cowcloop("info", nginx.url("a.img"))

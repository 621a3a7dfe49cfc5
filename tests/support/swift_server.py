"""OpenStack Swift, which speaks S3, as one process that keeps everything in a folder.

Run by the distribution's own Python, which has it (Debian: python3-swift):
``swift_server.py FOLDER ACCOUNT:USER SECRET BUCKET``. It puts the files of FOLDER/objects into the
bucket, prints its port, and ends with its standard input. The storage servers behind the proxy are
its own, on loopback.
"""

from __future__ import annotations

import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

STORES = ("account", "container", "object")

STORE = """
[DEFAULT]
devices = {folder}/devices
mount_check = false
swift_dir = {folder}
disable_fallocate = true
[app:main]
use = egg:swift#{name}
"""

PROXY = """
[DEFAULT]
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors gatekeeper cache s3api tempauth proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:s3api]
use = egg:swift#s3api
location = eu-central-1
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret} .admin
"""

# Without the filters, for what the tests themselves put there.
INSIDE = """
[DEFAULT]
swift_dir = {folder}
[app:main]
use = egg:swift#proxy
account_autocreate = true
"""


def main(folder: Path, key: str, secret: str, bucket: str) -> None:
    """Serve until standard input ends."""
    account, _, user = key.partition(":")
    eventlet: Any = import_module("eventlet")
    eventlet.monkey_patch()
    import_module("eventlet.wsgi")
    utils: Any = import_module("swift.common.utils")
    utils.HASH_PATH_PREFIX, utils.HASH_PATH_SUFFIX = b"tests", b"tests"
    utils.validate_hash_conf = lambda: None
    (folder / "devices/disk").mkdir(parents=True)

    def serve(name: str, listening: Any, config: str) -> None:
        logs = (folder / f"{name}.log").open("w", buffering=1)
        eventlet.spawn(eventlet.wsgi.server, listening, load(name, config), log=logs)

    def load(name: str, config: str) -> Any:
        path = folder / f"{name}.conf"
        words = {"account": account, "user": user, "secret": secret}
        path.write_text(config.format(folder=folder, name=name, **words))
        return import_module("paste.deploy").loadapp(f"config:{path}")

    for name in STORES:
        listening = eventlet.listen(("127.0.0.1", 0))
        ring(folder / f"{name}.ring.gz", listening)
        serve(name, listening, STORE)
    upload(load("inside", INSIDE), folder / "objects", f"/v1/AUTH_{account}/{bucket}")
    listening = eventlet.listen(("127.0.0.1", 0))
    serve("proxy", listening, PROXY)
    print(listening.getsockname()[1], flush=True)
    import_module("eventlet.hubs").trampoline(sys.stdin.fileno(), read=True)


def ring(path: Path, listening: socket.socket) -> None:
    """That of one device, on the storage server that listens there."""
    builder = import_module("swift.common.ring").RingBuilder(1, 1, 0)
    host, port = listening.getsockname()
    place = {"region": 1, "zone": 1, "ip": host, "port": port}
    replication = {"replication_ip": host, "replication_port": port}
    builder.add_dev({"id": 0, "device": "disk", "weight": 1, "meta": "", **place, **replication})
    builder.rebalance()
    builder.get_ring().save(str(path))


def upload(proxy: Any, objects: Path, container: str) -> None:
    """Put the files of a folder into a container."""
    blank = import_module("swift.common.swob").Request.blank

    def put(path: str, content: bytes) -> None:
        quoted = import_module("urllib.parse").quote(path)
        answer = blank(quoted, environ={"REQUEST_METHOD": "PUT"}, body=content).get_response(proxy)
        if answer.status_int // 100 != 2:
            sys.exit(f"{path}: {answer.status}")

    put(container, b"")
    for file in sorted(objects.rglob("*")):
        if file.is_file():
            put(f"{container}/{file.relative_to(objects)}", file.read_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

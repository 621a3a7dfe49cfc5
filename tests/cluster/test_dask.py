"""create and verify with --dask: a cluster's workers do the work, and may die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cowcloop
import pytest
from support import cloop, workers
from support.interrupted import stopped_half_way
from support.programs import PATIENCE, cowcloop_path, finding, one_line, refused, run
from support.programs import cowcloop as run_cowcloop
from support.server import wait_until

pytestmark = [
    # Dask's, of which a test of ours says nothing.
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

BLOCK = 65536
#: Four ranges and a bit.
PLAIN = (cloop.sample(20 * BLOCK, BLOCK) * 13)[: 16 * (1 << 20) + 777]


@pytest.fixture(scope="module")
def processes() -> None:
    """Dask's workers are processes, or start theirs."""
    workers.require_processes()


@pytest.fixture(scope="module")
def cluster(processes: None) -> Iterator[Any]:
    """Two processes of one thread."""
    distributed: Any = pytest.importorskip("distributed", reason="Dask is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as started:
        yield started


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw"
    path.write_bytes(PLAIN)
    return path


def _made_here(raw: Path, *options: str) -> bytes:
    want = raw.with_name("want")
    run_cowcloop("create", *options, raw, want)
    return want.read_bytes()


@pytest.mark.parametrize("options", [[], ["--format", "v4", "--codec", "lz4", "--footer"]])
def test_a_cluster_gives_the_same_bytes(
    cluster: Any, raw: Path, tmp_path: Path, options: list[str]
) -> None:
    there = tmp_path / "there"
    address = cluster.scheduler_address
    done = run_cowcloop("create", "--dask", address, "--json", *options, raw, there)
    want = _made_here(raw, *options)
    assert there.read_bytes() == want
    assert json.loads(done.stdout)["file_size"] == len(want)
    piped = run_cowcloop("create", "--dask", address, *options, "-", "-", stdin=PLAIN)
    assert piped.stdout == want


@pytest.mark.usefixtures("processes")
def test_processes_of_its_own(raw: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    done = run_cowcloop("create", "--dask", "local:2", "--quiet", raw, there)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert there.read_bytes() == _made_here(raw)
    image = bytearray(there.read_bytes())
    image[len(image) // 2] ^= 1
    there.write_bytes(image)
    found = run_cowcloop("verify", "--dask", "local:2", "--json", there, expect=1)
    assert found.stdout == run_cowcloop("verify", "--json", there, expect=1).stdout


def test_one_of_two_workers_is_killed(cluster: Any, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    from distributed import client as dask

    connect: Any = dask.Client
    with connect(cluster, set_as_default=False) as client:
        before = client.run(os.getpid)
        killed: list[int] = []

        def kill_one(_done: int, _total: int | None) -> None:
            if not killed:
                killed.append(next(iter(before.values())))
                os.kill(killed[0], signal.SIGKILL)

        cowcloop.create(raw, out, level="best", executor=client.get_executor(), progress=kill_one)
        client.wait_for_workers(2, timeout=PATIENCE)
        assert killed[0] not in client.run(os.getpid).values()
        report = cowcloop.CloopImage(out).verify(executor=client.get_executor())
    assert report.ok
    assert out.read_bytes() == _made_here(raw, "--level", "best")


class _Scheduler:
    """A cluster of separate programs, to be killed."""

    def __init__(self, folder: Path) -> None:
        file = folder / "scheduler.json"
        common = ["--no-dashboard", "--scheduler-file", str(file)]
        self.programs = [
            self._start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", *common),
        ]
        wait_until(file.exists, "the scheduler")
        wait_until(lambda: bool(file.read_text()), "its address")
        self.address = json.loads(file.read_text())["address"]
        options = ["--nworkers", "1", "--nthreads", "1", "--local-directory", str(folder)]
        self.programs.append(self._start("dask_worker", *options, *common))

    @staticmethod
    def _start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)

    def kill(self) -> None:
        """End all of it at once."""
        for program in self.programs:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait()


@pytest.fixture
def scheduler(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Scheduler]:
    started = _Scheduler(tmp_path_factory.mktemp("dask"))
    yield started
    started.kill()


def test_a_cluster_that_is_gone(scheduler: _Scheduler, tmp_path: Path) -> None:
    big, out = tmp_path / "raw", tmp_path / "out"
    with big.open("wb") as file:
        file.truncate(4 << 30)
        file.write(PLAIN)
    out.write_bytes(b"old")
    command = [
        cowcloop_path(), "create", "--level", "best", "--dask", scheduler.address, big, out
    ]  # fmt: skip
    child = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    links = Path(f"/proc/{child.pid}/fd")
    wait_until(
        lambda: any(_target(link).parent == tmp_path for link in links.iterdir()), "an output"
    )
    scheduler.kill()
    errors = child.communicate(timeout=PATIENCE)[1].decode()
    assert child.returncode == 1, errors
    one_line(errors, "the Dask cluster")
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def _target(link: Path) -> Path:
    try:
        target = Path(os.readlink(link))
    except FileNotFoundError:
        return Path("/")
    # The source is open from the start.
    return Path("/") if target.name == "raw" else target


def test_a_cluster_that_never_was(raw: Path, tmp_path: Path) -> None:
    refused(
        "create", "--dask", "tcp://127.0.0.1:9", raw, tmp_path / "out",
        says=("the Dask cluster", "127.0.0.1:9", "cannot be reached"),
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.usefixtures("processes")
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    big, out = tmp_path / "raw", tmp_path / "out"
    with big.open("wb") as file:
        file.truncate(8 << 30)
        file.write(PLAIN)
    arguments = ("create", "--level", "best", "--dask", "local:2", big, out)
    assert stopped_half_way(*arguments, folder=tmp_path) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.usefixtures("processes")
def test_ctrl_c_during_garbage_collection(tmp_path: Path) -> None:
    """No exception of its callbacks reaches the program: the command ends all the same."""
    (tmp_path / "raw").write_bytes(bytes(1 << 20))
    script = (
        "import gc, signal, sys\n"
        "from cowcloop import cli, cluster\n"
        "def strike(phase, info):\n"
        "    gc.callbacks.clear()\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "def create(*arguments, **options):\n"
        "    gc.callbacks.append(strike)\n"
        "    gc.collect()\n"
        "    return begin(*arguments, **options)\n"
        "begin, cluster.create = cluster.create, create\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    words = ("create", "--dask", "local:1", tmp_path / "raw", tmp_path / "out")
    done = run(sys.executable, "-c", script, *words, expect=130)
    assert done.stderr == b"cowcloop: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize("address", ["", "local", "local:0", "local:x", "head", "head:8786"])
@pytest.mark.parametrize("command", ["create", "verify"])
def test_what_is_no_address(command: str, address: str, raw: Path, tmp_path: Path) -> None:
    out = [tmp_path / "out"] if command == "create" else []
    done = run_cowcloop(command, "--dask", address, raw, *out, expect=2)
    one_line(done.stderr.decode(), "--dask")


def test_threads_are_of_this_machine(raw: Path, tmp_path: Path) -> None:
    for options in (["--threads", "2", "--dask", "local:2"], ["--dask", "local:2", "--threads=2"]):
        done = run_cowcloop("create", *options, raw, tmp_path / "out", expect=2)
        one_line(done.stderr.decode(), "--threads")


def test_without_dask(raw: Path, tmp_path: Path) -> None:
    """It is said how to get it; and it is loaded for --dask alone."""
    hide = tmp_path / "hide"
    (hide / "distributed").mkdir(parents=True)
    (hide / "distributed" / "__init__.py").write_text("raise ImportError('hidden')")
    environment = {**os.environ, "PYTHONPATH": str(hide)}
    out = tmp_path / "out"
    command: list[str | Path] = [cowcloop_path(), "create", raw, out]
    done = subprocess.run([*command, "--dask", "local:1"], env=environment, capture_output=True)
    assert done.returncode == 1
    one_line(done.stderr.decode(), "pip install 'cowcloop[cluster]'")
    subprocess.run(command, env=environment, check=True)
    assert cowcloop.CloopImage(out).verify().ok


_FAKE = """
class LocalCluster:
    def __init__(self, **options):
        {start}
    def close(self, timeout):
        raise TimeoutError("the workers do not end")

class Client:
    def __init__(self, *arguments, **options):
        raise OSError("nothing\\nanswers")
"""


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (
            "raise RuntimeError('Nanny failed\\n to start.')",
            "cannot be started: RuntimeError: ",
        ),
        ("pass", "cannot be reached: OSError: nothing answers"),
    ],
)
def test_processes_of_its_own_that_fail(start: str, says: str, raw: Path, tmp_path: Path) -> None:
    """It is one line, and that of the first failure."""
    pytest.importorskip("distributed", reason="Dask is not installed")
    fake = tmp_path / "fake"
    (fake / "distributed").mkdir(parents=True)
    (fake / "distributed" / "__init__.py").write_text(_FAKE.format(start=start))
    out = tmp_path / "out"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    refused(
        "create", "--dask", "local:2", raw, out,
        says=("the Dask cluster local:2", says),
        env={**finding(fake), "TMPDIR": str(temporary)},
    )  # fmt: skip
    assert list(temporary.iterdir()) == []
    assert not out.exists()

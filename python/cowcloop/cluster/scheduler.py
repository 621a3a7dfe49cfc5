"""A pool out of a Dask cluster: one that runs, or one that is started for the work.

Dask is loaded here and nowhere else, when it is asked for.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import Any

from ..errors import ClusterError, InvalidInputError
from .pool import Pool, one_line

#: Seconds that a scheduler has to answer.
_ANSWER = 10
#: Seconds that a cluster may be without any worker.
_PATIENCE = 30
_LOCAL = re.compile(r"local:([1-9][0-9]{0,3})")
_REMOTE = re.compile(r"[a-z]+://.+")


def check_address(address: str) -> None:
    """Refuse what is no address of a cluster."""
    if not _LOCAL.fullmatch(address) and not _REMOTE.fullmatch(address):
        message = (
            f"{address!r} names no Dask cluster: write tcp://HOST:PORT of its scheduler, or"
            " local:N for N processes"
        )
        raise InvalidInputError(message)


@contextlib.contextmanager
def connected(address: str) -> Iterator[Pool]:
    """The pool of a cluster, for as long as the work takes."""
    check_address(address)
    name = f"the Dask cluster {address}"
    with _loaded() as distributed, contextlib.ExitStack() as open_things:
        where: Any = address
        local = _LOCAL.fullmatch(address)
        if local:
            where = open_things.enter_context(_started(distributed, int(local[1]), name))
        client = open_things.enter_context(_client(distributed, where, name))
        threads = _wait_for_workers(client, name)
        # Keys of their own: two clients may work on the same image.
        executor = client.get_executor(pure=False)
        yield Pool(executor, threads, name, _watch(client, name))


@contextlib.contextmanager
def _loaded() -> Iterator[Any]:
    """Dask, whose messages are not printed: this program says what went wrong."""
    try:
        import dask.config
        import distributed
    except ImportError as error:
        message = f"Dask is missing ({error}): pip install 'cowcloop[cluster]'"
        raise ClusterError(message) from None
    for known in list(logging.root.manager.loggerDict):
        if known.split(".")[0] in ("asyncio", "distributed", "tornado"):
            logging.getLogger(known).setLevel(logging.CRITICAL + 1)
    # Ranges with their bytes may be larger than what Dask calls large.
    settings = {
        "distributed.admin.large-graph-warning-threshold": "1GB",
        "distributed.comm.timeouts.connect": f"{_ANSWER}s",
    }
    with dask.config.set(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield distributed


@contextlib.contextmanager
def _started(distributed: Any, workers: int, name: str) -> Iterator[Any]:
    """A cluster of processes on this machine."""
    with contextlib.ExitStack() as open_things:
        try:
            folder = tempfile.mkdtemp(prefix="cowcloop-dask-")
            open_things.callback(shutil.rmtree, folder, ignore_errors=True)
            with _deaf_to_interrupts():
                cluster = distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address=None,
                    local_directory=folder,
                    silence_logs=logging.CRITICAL + 1,
                )
        except Exception as error:
            # Dask, its event loop and the system each have errors of their own.
            raise ClusterError(f"{name}: cannot be started: {one_line(error)}") from error
        try:
            yield cluster
        finally:
            # The work is done, or has failed for a reason that is told: this would hide it.
            with contextlib.suppress(Exception):
                cluster.close(timeout=_PATIENCE)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let the threads and processes that the block starts ignore Ctrl-C.

    A terminal sends it to each of them, and Dask's would print a traceback. It ends this program,
    which ends them; it comes through when the block has ended.
    """
    # It would unblock the signal in the thread that starts it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _client(distributed: Any, where: Any, name: str) -> Iterator[Any]:
    try:
        client = distributed.Client(where, timeout=_ANSWER, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(f"{name}: cannot be reached: {one_line(error)}") from error
    try:
        yield client
    finally:
        # What a scheduler that is gone does not answer.
        with contextlib.suppress(Exception):
            client.close(timeout=5)


def _wait_for_workers(client: Any, name: str) -> int:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        threads = sum(_threads(client).values())
        if threads:
            return threads
        time.sleep(0.2)
    raise ClusterError(f"{name}: it has no workers")


def _watch(client: Any, name: str) -> Callable[[], None]:
    """Raise ClusterError once the scheduler is gone, or there has been no worker for long."""
    last = time.monotonic()

    def check() -> None:
        nonlocal last
        # While it tries to connect again nothing is known.
        if client.status in ("closing", "closed"):
            raise ClusterError(f"{name}: the connection to its scheduler is lost")
        if client.status != "running" or _threads(client):
            last = time.monotonic()
        elif time.monotonic() - last > _PATIENCE:
            raise ClusterError(f"{name}: it has no workers any more")

    return check


def _threads(client: Any) -> dict[str, int]:
    try:
        found: dict[str, int] = client.nthreads()
    except (OSError, RuntimeError):
        return {}
    return found

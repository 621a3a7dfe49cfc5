"""A device that is served, killed, and served again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.fsx.model import BLOCK, Model
from support.fsx.moments import Moments
from support.fsx.requests import Clients, Picker, Window
from support.programs import PATIENCE, Argument, cowcloop, cowcloop_path, mannered
from support.server import Server
from support.sessions import session_uri

#: How a life ends.
_ENDS = {"kill": 14, "kill in a snapshot": 2, "kill after reopen": 2, "stop": 2}


@dataclass
class Volume:
    """A device, and what it is made of: a session has a name."""

    model: Model
    #: What `extract` makes a plain device of; the last one is the writable cowfile.
    files: list[Path]
    name: str = ""
    #: The writable cowfile before the first life, if there is one.
    blank: bytes | None = field(init=False)

    def __post_init__(self) -> None:
        top = self.files[-1]
        self.blank = top.read_bytes() if top.exists() else None

    def begin_anew(self) -> None:
        """With an empty cowfile: in one that holds every block no bit changes any more."""
        self.model.fresh()
        self.files[-1].unlink(missing_ok=True)
        if self.blank is not None:
            self.files[-1].write_bytes(self.blank)

    @property
    def session(self) -> list[str]:
        return ["--session", self.name] if self.name else []

    def uri(self, server: Server) -> str:
        return session_uri(server, self.name) if self.name else server.uri


@dataclass
class Lives:
    """Lives of one server, one after the other, and what was done in them."""

    rng: random.Random
    arguments: Sequence[Argument]
    volumes: list[Volume]
    #: Where requests are made. Nothing else of the device ever changes.
    windows: Sequence[Window]
    #: For snapshots and plain devices.
    folder: Path
    #: How often each thing was done: kinds of requests, errors and ends.
    done: Counter[str] = field(default_factory=Counter)

    def run(self, seconds: float, wanted: Mapping[str, int]) -> None:
        """Lives until the time is up, and until all that is wanted has been done so often."""
        end = time.monotonic() + seconds

        def over() -> bool:
            done = all(self.done[what] >= least for what, least in wanted.items())
            return done and time.monotonic() > end

        while not over():
            for _ in range(self.rng.randint(2, 5)):
                self.live(self.rng.choices(list(_ENDS), list(_ENDS.values()))[0], over)
            self.live("stop", over)
            for volume in self.volumes:
                if volume.files[-1].exists():
                    self._compare(volume, volume.files[-1], Moments())
                volume.begin_anew()

    def live(self, ending: str, over: Callable[[], bool] = lambda: False) -> None:
        """One life, which ends as ``ending`` says, and soon once the time is ``over``."""
        server = Server(*self.arguments)
        inside = server.nbdkit_pid()
        clients = [self._connect(server, volume) for volume in self.volumes]
        batches = self.rng.choice((2, 5, 20, 80))
        for number in range(batches):
            if number > 1 and over():
                break
            self._batch(clients)
        if ending == "kill after reopen":
            self._reopen(server, clients)
        elif ending == "kill in a snapshot" or self.rng.random() < 0.2:
            kill = inside if ending == "kill in a snapshot" else None
            self._snapshot(server, clients, kill)
        if ending == "stop":
            self._stop(server, clients)
        else:
            self._batch(clients, kill=inside)
            assert server.wait() == 1
            self.done["kills"] += 1
        mannered(server.errors)
        for each in clients:
            self.done += each.done

    def _connect(self, server: Server, volume: Volume) -> Clients:
        picker = Picker(self.rng, self.windows)
        clients = Clients(volume.uri(server), volume.model, picker)
        clients.check(self.windows)
        return clients

    def _batch(self, clients: Sequence[Clients], kill: int | None = None) -> None:
        """Requests on all devices at once; with ``kill`` that is what ends them."""
        for each in clients:
            # A kill finds many of them without an answer.
            each.send(24 if kill is None else 100)
        if kill is not None:
            time.sleep(self.rng.choice((0, 0, 0.0003, 0.001, 0.003)))
            with contextlib.suppress(ProcessLookupError):
                os.kill(kill, signal.SIGKILL)
        for each in clients:
            each.finish()

    def _stop(self, server: Server, clients: Sequence[Clients]) -> None:
        if self.rng.random() < 0.5:
            for each in clients:
                for handle in each.handles:
                    handle.shutdown()
        assert server.stop() == 0, server.errors
        for each in clients:
            each.model.flush()
        self.done["stops"] += 1

    def _reopen(self, server: Server, clients: Sequence[Clients]) -> None:
        """Goes on read-only, under requests; all of it is durable then."""
        at = self.rng.randrange(len(clients))
        volume, chosen = self.volumes[at], clients[at]
        reopen = _start("reopen", "--read-only", server.uri, *volume.session)
        while reopen.poll() is None:
            self._batch(clients)
        assert _ended(reopen) == 0
        chosen.model.flush()
        before = sum(chosen.done[kind] for kind in ("write", "fua"))
        for _ in range(3):
            self._batch(clients)
        assert sum(chosen.done[kind] for kind in ("write", "fua")) == before
        self.done["reopened"] += 1

    def _snapshot(self, server: Server, clients: Sequence[Clients], kill: int | None) -> None:
        """Copies a cowfile under requests; the copy is the device of one moment meanwhile."""
        at = self.rng.randrange(len(clients))
        volume, chosen = self.volumes[at], clients[at]
        if not chosen.done["write"]:
            return
        copy = self.folder / "snapshot.cow"
        moments = chosen.model.moments = Moments()
        taking = _start("cow", "snapshot", server.uri, *volume.session, copy)
        killed_at = time.monotonic() + self.rng.uniform(0, 1)
        while taking.poll() is None:
            dies = kill is not None and time.monotonic() > killed_at
            self._batch(clients, kill if dies else None)
            if dies:
                break
        code = _ended(taking)
        chosen.model.moments = None
        if code != 0:
            assert kill is not None
            assert code == 1
        # A server may die when the copy has its name, and before it has said so.
        if code == 0 or copy.exists():
            self._compare(volume, copy, moments)
            self.done["snapshots"] += 1
        copy.unlink(missing_ok=True)

    def _compare(self, volume: Volume, top: Path, moments: Moments) -> None:
        """The device that `extract` makes of a cowfile is the model's of one of the moments."""
        possible = moments.all()
        plain = self.folder / "plain"
        cowcloop("extract", *volume.files[:-1], top, plain)
        with plain.open("rb") as file:
            for start, size in self.windows:
                file.seek(start)
                found = file.read(size)
                for at in range(0, size, BLOCK):
                    block, part = (start + at) // BLOCK, found[at : at + BLOCK]
                    now = volume.model.read(start + at, len(part))
                    moments.narrow(possible, block, part, now)
                    assert possible, f"{top.name}: block {block} is {part[:24].hex()}..."
        plain.unlink()


def _start(*arguments: Argument) -> subprocess.Popen[bytes]:
    command = [cowcloop_path(), *[os.fspath(argument) for argument in arguments]]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _ended(process: subprocess.Popen[bytes]) -> int:
    _, said = process.communicate(timeout=PATIENCE)
    mannered(said.decode())
    return process.returncode

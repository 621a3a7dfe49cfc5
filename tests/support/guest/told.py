"""What the scenario of a guest has told."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.guest.machine import Machine


@dataclass
class Told:
    """The results by their names, and what the kernel has said besides."""

    console: str
    results: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, machine: Machine) -> Told:
        """From a machine's two ports."""
        told = cls(machine.console)
        for line in machine.results.splitlines():
            if line.startswith("{"):
                told.results.update(json.loads(line))
        return told

    def save(self, path: Path) -> None:
        """For tests that run in other processes."""
        path.write_text(json.dumps([self.console, self.results]))

    @classmethod
    def load(cls, path: Path) -> Told:
        """What was saved."""
        return cls(*json.loads(path.read_text()))

    def __getitem__(self, name: str) -> Any:
        assert name in self.results, (self.failed(), self.console[-4000:])
        return self.results[name]

    def failed(self) -> dict[str, Any]:
        """What did not go as the scenario wanted."""
        return {name: value for name, value in self.results.items() if name.startswith("failed")}

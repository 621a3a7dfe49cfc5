"""The whole benchmark: measure, print the table, keep JSON and a picture."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from cowcloop.sizes import parse_size

from benches import machine, material, plot, report
from benches.model import Row
from benches.runner import measure
from benches.works import Setting, all_works

_RESULTS = Path(__file__).parent / "results"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("--size", type=parse_size, default=512 << 20, help="of the image: 512M")
    parser.add_argument("--runs", type=int, default=3, help="of each program in each work: 3")
    parser.add_argument("--seconds", type=float, default=30, help="of the long random read: 30")
    parser.add_argument(
        "--only",
        action="append",
        metavar="WORK",
        help="works with this beginning of a name; repeatable",
    )
    parser.add_argument(
        "--kernel-lab",
        action="store_true",
        help="kernel cloop and its neighbours too, in a User Mode Linux kernel that is built once",
    )
    parser.add_argument("--output", type=Path, default=_RESULTS, help="folder for JSON and SVG")
    parser.add_argument(
        "--name", default="latest", help="of the files there, without an ending: latest"
    )
    return parser.parse_args()


def main() -> int:
    """Run what was asked for."""
    asked = _arguments()
    busy = machine.ProcessorTime()
    prepared = material.prepare(asked.size)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(
        dir=material.memory_folder(), prefix="cowcloop-bench-"
    ) as scratch:
        setting = Setting(prepared, Path(scratch), asked.seconds)
        for work in all_works(setting):
            if not asked.only or work.name.startswith(tuple(asked.only)):
                rows += measure(work, asked.runs)
    if asked.kernel_lab:
        from benches import kernel_lab

        rows = kernel_lab.join(rows, kernel_lab.measure(prepared, asked.runs))
    described = machine.describe()
    described["busy"] = (
        f"image {asked.size >> 20} MiB of /usr, {prepared.cloop.stat().st_size >> 20} MiB"
        f" compressed; load {machine.load():.1f}, {busy.stolen_percent():.0f} % of processor"
        " time stolen by the hypervisor"
    )
    report.show(rows, described)
    asked.output.mkdir(parents=True, exist_ok=True)
    document = json.dumps(report.to_json(rows, described), indent=1)
    # A name may have a dot: v0.2.
    (asked.output / f"{asked.name}.json").write_text(document + "\n")
    (asked.output / f"{asked.name}.md").write_text(report.to_markdown(rows, described))
    plot.draw(rows, asked.output / f"{asked.name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())

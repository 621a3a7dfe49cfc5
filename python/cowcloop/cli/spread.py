"""The option that spreads a command's work over a Dask cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import rich_click as click

from cowcloop.errors import InvalidInputError

if TYPE_CHECKING:
    from cowcloop.cluster import Pool


def _address(_ctx: click.Context, _option: click.Parameter, address: str | None) -> str | None:
    if address is None:
        return None
    from cowcloop.cluster.scheduler import check_address

    try:
        check_address(address)
    except InvalidInputError as error:
        raise click.UsageError(f"--dask: {error}") from None
    return address


DASK = click.option(
    "--dask",
    metavar="ADDRESS",
    callback=_address,
    help="Spread the work over a Dask cluster: its scheduler's tcp://HOST:PORT, or local:N for N"
    " processes here.",
)


@contextlib.contextmanager
def pool_at(address: str | None, threads: int | None) -> Iterator[Pool | None]:
    """The cluster's workers; None where no cluster is asked for."""
    if address is None:
        yield None
        return
    if threads is not None:
        raise click.UsageError("--threads is for work on this machine: leave it out with --dask")
    from cowcloop.cluster.scheduler import connected

    with connected(address) as pool:
        yield pool

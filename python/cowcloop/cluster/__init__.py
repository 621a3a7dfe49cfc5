"""The work of `create` and `verify`, spread over an executor: processes, threads, or the
machines of a Dask cluster.

============== ==================================================================
`sight`        whether a worker sees the file that the work is about
`tasks`        what a worker does with one range of blocks
`ordered`      ranges in flight: how many, in which order, and again where one failed
`pool`         an executor, and what is known of it
`scheduler`    a pool out of a Dask cluster
`creating`     create: ranges to workers, their results to the writer
`verifying`    verify
============== ==================================================================
"""

from __future__ import annotations

from .creating import create
from .pool import Pool
from .verifying import verify

__all__ = ["Pool", "create", "verify"]

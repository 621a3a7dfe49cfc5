"""Kernel cloop and its neighbours, run natively in User Mode Linux kernels.

One kernel has cloop, a newer one ublk as cowcloopd needs it. `measure` builds both, and the module,
where they are not in the cache, boots them with this machine's own files as their root, and returns
the rows that ``guest.py`` measured in there.
"""

from __future__ import annotations

from benches.kernel_lab.boot import measure
from benches.kernel_lab.joined import join

__all__ = ["join", "measure"]

"""Kernel cloop and its neighbours, run natively in a User Mode Linux kernel.

`measure` builds the kernel and the module where they are not in the cache, boots it with this
machine's own files as its root, and returns the rows that ``guest.py`` measured in there.
"""

from __future__ import annotations

from benches.kernel_lab.boot import measure
from benches.kernel_lab.joined import join

__all__ = ["join", "measure"]

"""How fast this machine reads an image: what `cowcloop bench` measures.

Kernel cloop is measured beside it where the module holds the same image.
"""

from __future__ import annotations

from cowcloop.bench.figures import Figures
from cowcloop.bench.kernel import KERNEL_DEVICE, why_no_kernel
from cowcloop.bench.run import Measurement, run

__all__ = ["KERNEL_DEVICE", "Figures", "Measurement", "run", "why_no_kernel"]

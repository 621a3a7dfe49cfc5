"""Files inside an ISO 9660 image: where their bytes lie. Nothing is mounted or copied.

pycdlib reads the directories, all of them before it answers, and expects an undamaged disc. Here it
is held to limits, and whatever it raises becomes one of our errors.
"""

from __future__ import annotations

from cowcloop.iso9660.contents import contents
from cowcloop.iso9660.find import pieces
from cowcloop.iso9660.medium import is_iso9660, shown

__all__ = ["contents", "is_iso9660", "pieces", "shown"]

"""Files inside an ISO 9660 image: where their bytes lie. Nothing is mounted or copied.

Why no library: pycdlib, the well-kept one, reads every directory of a disc before it answers, and
refuses the disc for a flaw in any of them; we need one path. It also wants a newer Python than this
package does.

Facts of the format: ECMA-119 (ISO 9660), and for Rock Ridge IEEE P1281 (SUSP) and P1282 (RRIP).
"""

from __future__ import annotations

from cowcloop.iso9660.contents import contents
from cowcloop.iso9660.disc import Disc, is_iso9660

__all__ = ["Disc", "contents", "is_iso9660"]

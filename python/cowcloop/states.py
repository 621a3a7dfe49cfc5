"""Words for how a cowfile or a served device is: the engine's and the server's, and our own."""

from __future__ import annotations

# Of a cowfile, as the engine and the server say them.
CLEAN = "clean"
#: Its file was removed or replaced while it is served: its changes are lost when it is closed.
REMOVED = "removed"

# Of a served device.
READ_ONLY = "read-only"
SUSPENDED = "suspended"
#: Its server does not answer, or has ended under a mount.
NO_ANSWER = "no answer"
BROKEN = "broken"

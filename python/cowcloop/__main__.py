"""``python -m cowcloop``."""

import sys

from cowcloop.cli import main

sys.exit(main())

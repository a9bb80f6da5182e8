"""``python -m wsr.cli`` is ``wsr``."""

import sys

from wsr.cli import main

sys.exit(main())

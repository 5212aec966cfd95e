"""``python -m microfw``: the command line."""

import sys

from microfw.cli import main

sys.exit(main())

"""``python -m microfw``: the command line."""

import sys

from microfw.cli.main import main

sys.exit(main())

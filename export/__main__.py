"""``python -m export``."""

import sys

from export.command_line import main

if __name__ == "__main__":
    sys.exit(main())

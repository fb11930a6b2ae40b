"""``python -m emoedit``."""

import sys

from emoedit.cli import main

if __name__ == "__main__":
    sys.exit(main())

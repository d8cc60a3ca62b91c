"""``python -m transpike``: the command line."""

import sys

from transpike.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m mxdeconv`: the command line of `mxdeconv.porting.cli`."""

import sys

from mxdeconv.porting.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m xdpipe` is `xdpipe`."""

import sys

from xdpipe.cli import main

sys.exit(main(prog_name="xdpipe"))

"""`python -m lgsirens` is the command `lgsirens`."""

import sys

from lgsirens.cli import main

sys.exit(main())

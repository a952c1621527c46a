"""`python -m lgsirens` is the command `lgsirens`."""

import sys

from lgsirens_start import main

sys.exit(main())

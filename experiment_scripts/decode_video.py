"""Decode a film from what was trained, with the published flags; --help lists them."""

import os
import sys

# the package beside this folder, installed or not
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from lgsirens_start import start

if __name__ == "__main__":
    sys.exit(start("lgsirens.paper.runs", "video", decoding=True))

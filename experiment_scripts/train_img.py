"""Encode an image with the published flags; --help lists them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package beside this folder, installed or not

from lgsirens.published_runs import main

if __name__ == "__main__":
    sys.exit(main("image"))

"""GPU tests exist only where there is a GPU: elsewhere they are not collected, and so not counted as passed."""

import torch

collect_ignore_glob = [] if torch.cuda.is_available() else ["test_*.py"]

"""Settings of the whole test run."""

import torch
from hypothesis import settings

# No deadline: machines are noisy. The examples are the same in every run; `--hypothesis-profile search` looks further.
settings.register_profile("every run", deadline=None, derandomize=True, max_examples=40, database=None)
settings.register_profile("search", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("every run")

# One worker of the test run per core; tests about threads set their own number.
torch.set_num_threads(1)

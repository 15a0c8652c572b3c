"""Settings for all tests."""

import torch

torch.set_num_threads(1)  # tensors are tiny here: a second thread costs more than it brings

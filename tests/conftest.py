"""For all tests: on CUDA, cuDNN may not round to TF32, which is coarser than what is compared."""

import torch

torch.backends.cudnn.allow_tf32 = False

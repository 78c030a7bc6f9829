"""For all tests: on CUDA, cuDNN may not round to TF32, which is coarser than what is compared. On
the CPU one thread, as in training: the tensors are small, and threads that wait for one another on
a busy machine take minutes for what one does in seconds."""

import torch

torch.backends.cudnn.allow_tf32 = False
torch.set_num_threads(1)

"""The random numbers of an agent, saved and gone on with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class RandomState(NamedTuple):
    """States of the generators an agent draws from: PyTorch's for the CPU, and on CUDA for its own
    device, and that of the order of minibatches."""

    cpu: Tensor
    cuda: Tensor | None
    order: Any

    @classmethod
    def now(cls, device: torch.device, rng: np.random.Generator) -> RandomState:
        """The states as they are, for an agent on `device`."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), cuda, rng.bit_generator.state)

    def restore(self, device: torch.device, rng: np.random.Generator) -> None:
        """Go on from these states. An agent moved to another kind of device draws anew there."""
        torch.set_rng_state(self.cpu)
        rng.bit_generator.state = self.order
        if device.type == "cuda" and self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, device)

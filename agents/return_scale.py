"""How large the returns are, by which a critic's values and their errors are measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEWEST_SHARE = 0.1
"""Weight of a rollout in the running mean over rollouts."""

SPIKE = 10.0
"""Times the scale beyond which a return counts as no larger: one outlier among the rewards, which
would take tens of rollouts to be forgotten, does no harm, and returns that grow are soon met."""


@dataclass
class ReturnScale:
    """Root mean square of the returns of recent rollouts; 1 where it is smaller.

    The actor and the critic read one memory. Returns of hundreds would make its gradient the
    critic's alone, and a value head behind normalised features takes thousands of updates to reach
    them. So the head learns values in units of this scale.

    Source: van Hasselt et al. 2016, "Learning values across many orders of magnitude",
    arXiv:1602.07714 (Pop-Art), without its shift.
    """

    mean_square: float = 0.0
    weight: float = 0.0
    """Of all rollouts in the running mean: below 1 while they are few."""

    def update(self, returns: NDArray[np.float32]) -> float:
        """Take in the returns of a rollout, any shape, and give the scale."""
        most = SPIKE * self.scale if self.weight > 0 else math.inf
        newest = float(np.square(returns.clip(-most, most), dtype=np.float64).mean())
        self.mean_square += NEWEST_SHARE * (newest - self.mean_square)
        self.weight += NEWEST_SHARE * (1 - self.weight)
        return self.scale

    @property
    def scale(self) -> float:
        """The scale of the rollouts taken in; at least one must have been."""
        return max(1.0, math.sqrt(self.mean_square / self.weight))

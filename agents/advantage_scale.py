"""How large the advantages once were, and how much of that is left: the end of learning, told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.optim import Optimizer

from .episode_returns import MIN_EPISODES

DECAY = 0.9999
"""Per rollout, of the largest deviation met so far."""

LEAST_SHARE = 0.05
"""Least share of the learning rate and of the entropy bonus that is left, unless an agent is told
another for the former."""

RISE = 3.0
"""Standard errors by which the recent return has to be above the first one to count as learned."""

SPIKE = 3.0
"""Times itself to which one rollout can raise the largest deviation at most."""


@dataclass
class AdvantageScale:
    """The largest standard deviation of a rollout's advantages since the agent has learned
    something.

    Once a task is solved the advantages are noise. Scaled up to unit variance, as usual, they turn
    a policy with hardly any entropy over, however well the memory keeps what it needs. So none are
    divided by less than `largest`. Adam undoes that, since its steps do not depend on the size of
    the gradient; so the learning rate shrinks with the advantages as well, to no less than the
    agent's `min_lr_share`, and, with `scale_ent_coef`, the entropy bonus. Should a solved policy
    begin to fail, advantages grow, and with them the steps.

    Small advantages say as much only of an agent whose return has risen. Before, they are as small
    where nothing has been found yet, and large ones tell what the critic does not know; so until
    then nothing is kept of them, and steps are full.
    """

    has_learned: bool = False
    largest: float = 0.0
    share: float = 1.0
    """What is left, for the last rollout taken in: its deviation in the largest."""
    first_return: tuple[float, float, int] | None = None
    """Mean and variance of the first returns that are believed, and how many they are. The first
    episodes to end are the shortest: where these earn less, it is a little low."""

    def update(self, deviation: float, returns: Sequence[float]) -> None:
        """Take in the deviation of a rollout's advantages, and the recent episodes' returns."""
        self.has_learned = self.has_learned or self._has_risen(returns)
        if not self.has_learned:
            return
        met = min(deviation, SPIKE * self.largest) if self.largest > 0 else deviation
        self.largest = max(met, DECAY * self.largest)
        left = deviation / self.largest if self.largest > 0 else 1.0
        self.share = min(1.0, left)

    def _has_risen(self, returns: Sequence[float]) -> bool:
        if len(returns) < MIN_EPISODES:
            return False
        sample = float(np.mean(returns)), float(np.var(returns)), len(returns)
        self.first_return = self.first_return or sample
        (mean, variance, n), (first, first_variance, n_first) = sample, self.first_return
        # where all of the first episodes earned the same, nothing, their variance says nothing
        error = variance / n + max(variance, first_variance) / n_first
        return mean - first > RISE * math.sqrt(error)

    @property
    def entropy_share(self) -> float:
        """Share of the entropy bonus that is left where it follows the advantages."""
        return max(self.share, LEAST_SHARE)

    def shorten_steps(self, optimizer: Optimizer, least_share: float) -> None:
        """Leave the optimizer `share` of the learning rate it has, or `least_share` if more."""
        for group in optimizer.param_groups:
            group["lr"] *= max(self.share, least_share)

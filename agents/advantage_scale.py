"""How large the advantages once were, and how much of that is left: the end of learning, told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch.optim import Optimizer

from .episode_returns import MIN_EPISODES, best_return

DECAY = 0.9999
"""Per rollout, of the largest deviation met so far."""

SolvedSign = Literal["returns", "advantages"]

LEAST_SHARE = 0.05
"""Least share of the learning rate and of the entropy bonus that is left, unless an agent is told
another for the former."""

RISE = 3.0
"""Standard errors by which the recent return has to be above the first one to count as learned."""

COUNTED = 0.98
"""Share of the recent returns that counts, those nearest to their median: one episode of a hundred,
in which the agent failed or something strange happened, is no reason for longer steps."""

SPIKE = 3.0
"""Times itself to which one rollout can raise the largest deviation at most."""


@dataclass
class AdvantageScale:
    """The largest standard deviation of a rollout's advantages since the agent has learned
    something, and the largest distance of returns from the best.

    Once a task is solved the advantages are noise. Scaled up to unit variance, as usual, they turn
    a policy with hardly any entropy over, however well the memory keeps what it needs. So none are
    divided by less than `largest`. Adam undoes that, since its steps do not depend on the size of
    the gradient; so the learning rate shrinks with the advantages as well, to no less than the
    agent's `min_lr_share`, and, with `scale_ent_coef`, the entropy bonus. Should a solved policy
    begin to fail, advantages grow, and with them the steps.

    Where much of a return is drawn, as by the length of a corridor, advantages never become small.
    So the learning rate also shrinks, solved by "returns", with the distance of the recent returns
    from the best mean there was. Nothing is left of it once every episode succeeds, and all
    of it if none does any more.

    Small advantages say as much only of an agent whose return has risen. Before, they are as small
    where nothing has been found yet, and large ones tell what the critic does not know; so until
    then nothing is kept of them, and steps are full.
    """

    has_learned: bool = False
    largest: float = 0.0
    share: float = 1.0
    """What is left, for the last rollout taken in: its deviation in the largest."""
    best_return: float = -math.inf
    """The best of the recent mean returns; it forgets slowly."""
    largest_distance: float = 0.0
    """The largest mean distance of the recent returns from it."""
    distance_share: float = 1.0
    """What is left of that distance."""
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
        if len(returns) >= MIN_EPISODES:
            self._update_distance(np.asarray(returns))

    def _update_distance(self, returns: NDArray[Any]) -> None:
        nearest = np.argsort(np.abs(returns - np.median(returns)))
        counted = returns[nearest[: int(COUNTED * len(returns))]]
        self.best_return = best_return(self.best_return, float(counted.mean()))
        distance = float(np.abs(counted - self.best_return).mean())
        self.largest_distance = max(distance, DECAY * self.largest_distance)
        left = distance / self.largest_distance if self.largest_distance > 0 else 1.0
        self.distance_share = min(1.0, left)

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

    def shorten_steps(
        self, optimizer: Optimizer, least_share: float, solved_by: SolvedSign = "returns"
    ) -> None:
        """Leave the optimizer `share` of the learning rate it has, or by returns what is left of
        their distance if less; or `least_share` if more."""
        left = min(self.share, self.distance_share) if solved_by == "returns" else self.share
        left = max(left, least_share)
        for group in optimizer.param_groups:
            group["lr"] *= left

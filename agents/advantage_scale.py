"""How large the advantages once were, and how much of that is left: the end of learning, told."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import Optimizer

DECAY = 0.9999
"""Per rollout, of the largest deviation met so far."""

LEAST_SHARE = 0.05
"""Least share that is left, unless an agent is told another for its learning rate."""


@dataclass
class AdvantageScale:
    """The largest standard deviation of a rollout's advantages met so far.

    Once a task is solved the advantages are noise. Scaled up to unit variance, as usual, they turn
    a policy with hardly any entropy over, however well the memory keeps what it needs. So none are
    divided by less than `largest`. Adam undoes that, since its steps do not depend on the size of
    the gradient; so the learning rate shrinks with the advantages as well, to no less than the
    agent's `min_lr_share`, and, with `scale_ent_coef`, the entropy bonus. Should a solved policy
    begin to fail, advantages grow, and with them the steps.
    """

    largest: float = 0.0
    share: float = 1.0
    """What is left, for the last rollout taken in."""

    def update(self, deviation: float) -> None:
        """Take in the deviation of a rollout's advantages. Its share is that of the deviation in
        the largest, no less than `LEAST_SHARE`."""
        self.largest = max(deviation, DECAY * self.largest)
        self.share = max(LEAST_SHARE, deviation / self.largest) if self.largest > 0 else 1.0

    def shorten_steps(self, optimizer: Optimizer, least_share: float) -> None:
        """Leave the optimizer `share` of the learning rate it has, or `least_share` if more."""
        for group in optimizer.param_groups:
            group["lr"] *= max(self.share, least_share)

"""How decided a policy is about the actions it took, as a number that does not saturate."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    Distribution,
    MultiCategoricalDistribution,
)
from torch import Tensor


def preference(distribution: Distribution, actions: Tensor) -> Tensor:
    """Preference for `actions` (N, ...) of SB3's distribution over them; (N,), with its graph.

    Choices: the log-odds of the one taken, against the mean of all there are, summed over the parts
    of the action. Its gradient stays where a probability is nearly 1 and that of the
    log-probability is gone. Continuous actions: how far the mean is from 0, in standard deviations.
    """
    if isinstance(distribution, CategoricalDistribution):
        return _lead_of(distribution.distribution.logits, actions.reshape(-1))
    if isinstance(distribution, MultiCategoricalDistribution):
        parts = zip(distribution.distribution, actions.unbind(-1), strict=True)
        return torch.stack([_lead_of(part.logits, chosen) for part, chosen in parts]).sum(0)
    if isinstance(distribution, BernoulliDistribution):
        return (distribution.distribution.logits * (2 * actions - 1)).flatten(1).sum(1)
    normal: Any = distribution.distribution
    decided: Tensor = (normal.mean.abs() / normal.stddev).flatten(1).sum(1)
    return decided


def _lead_of(logits_NA: Tensor, chosen_N: Tensor) -> Tensor:
    taken_N = logits_NA.gather(1, chosen_N.long()[:, None])[:, 0]
    return taken_N - logits_NA.mean(1)

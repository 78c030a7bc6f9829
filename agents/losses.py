"""The losses of PPO and A2C as pure functions. Inputs have one shape, outputs are scalars."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PolicyLoss(NamedTuple):
    """PPO's policy loss with the figures SB3 logs beside it. `approx_kl` has a gradient."""

    loss: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


def normalize(advantages: Tensor, least_std: float = 0.0) -> Tensor:
    """Zero mean, and unit variance unless the standard deviation is below `least_std`, which then
    divides instead; left as they are when there is only one."""
    if advantages.numel() < 2:
        return advantages
    std = advantages.std().clamp(min=least_std)
    return (advantages - advantages.mean()) / (std + 1e-8)


def ppo_policy_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip_range: float
) -> PolicyLoss:
    """Clipped surrogate objective (Schulman et al. 2017, arXiv:1707.06347, eq. 7), negated.

    The KL estimate is mean(ratio - 1 - log ratio), never negative (J. Schulman, "Approximating KL
    divergence", k3).
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = -torch.minimum(advantages * ratio, advantages * clipped).mean()
    approx_kl = (ratio - 1 - log_ratio).mean()
    with torch.no_grad():
        clip_fraction = ((ratio - 1).abs() > clip_range).float().mean()
    return PolicyLoss(loss, approx_kl, clip_fraction)


def value_loss(
    values: Tensor,
    returns: Tensor,
    old_values: Tensor | None = None,
    clip_range: float | None = None,
) -> Tensor:
    """Mean squared error to the returns; with `clip_range`, values move at most so far from old."""
    if clip_range is not None and old_values is not None:
        values = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return F.mse_loss(values, returns)


def entropy_loss(entropy: Tensor | None, log_prob: Tensor) -> Tensor:
    """Minus the entropy, or its one-sample estimate where the distribution has no closed form."""
    return -(-log_prob if entropy is None else entropy).mean()

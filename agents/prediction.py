"""Learning what to remember from what happens next, beside what it earns.

Shape letters: B environments, T time, D memory output, F features of an observation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, preprocess_obs
from torch import Tensor, nn

HIDDEN = 128
"""Hidden units of the predictor."""

LEAST_VARIANCE = 1e-2
"""Variance of the features below which errors are no longer a share of it: a segment in which
hardly anything changes teaches hardly anything."""


class NextFeatures(nn.Module):
    """Predicts the features of the next observation from the memory's output and the action.

    Rewards say seldom, late and amid noise what was worth remembering. What an action will show
    depends on the same memories (is this the door that was locked?), and is told at every step. So
    the loss of this prediction teaches the memory what to look up before the policy needs it.
    Used in training alone; acting does not pay for it.

    Source: self-predictive learning of the next latent state, as in Ni et al. 2024,
    arXiv:2401.08898; here the features of the observation itself, which rewards shape as well.

    Shapes: memory (B, T, D), actions (B, T, ...) of the action space given -> (B, T, F).
    """

    def __init__(self, dim_memory: int, action_space: spaces.Space[object], dim_features: int):
        super().__init__()
        self.action_space = action_space
        dim_action = get_flattened_obs_dim(action_space)
        self.network = nn.Sequential(
            nn.Linear(dim_memory + dim_action, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, dim_features)
        )

    def forward(self, memory_BTD: Tensor, actions_BT: Tensor) -> Tensor:
        B, T = memory_BTD.shape[:2]
        actions = preprocess_obs(actions_BT.flatten(0, 1), self.action_space, False)
        assert isinstance(actions, Tensor)
        inputs_BTX = torch.cat([memory_BTD, actions.view(B, T, -1)], -1)
        return self.network(inputs_BTX)  # type: ignore[no-any-return]


def prediction_loss(predicted_BTF: Tensor, features_BTF: Tensor, starts_BT: Tensor) -> Tensor:
    """Mean squared error of the features one step ahead, as a share of their variance.

    1 for a prediction no better than the mean. The last step, whose successor is not in the
    segment, and the last of an episode, whose successor is of another, do not count. No gradient
    reaches the features predicted. Shapes: (B, T, F) twice and (B, T); returns a scalar.
    """
    follows_BT1 = ~starts_BT[:, 1:, None].bool()
    target_BTF = features_BTF[:, 1:].detach()
    mean_F = (target_BTF * follows_BT1).sum((0, 1)) / follows_BT1.sum().clamp(min=1)
    error = F.mse_loss(predicted_BTF[:, :-1], target_BTF, reduction="none") * follows_BT1
    variance = (target_BTF - mean_F).square() * follows_BT1
    n_features = follows_BT1.sum() * features_BTF.shape[-1]
    return error.sum() / variance.sum().clamp(min=LEAST_VARIANCE * n_features.clamp(min=1))

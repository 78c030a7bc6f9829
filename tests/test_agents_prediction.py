"""Predicting the next observation: the loss by hand, every action space, and that it is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from expire_span.agents import MemoryA2C, MemoryPPO
from expire_span.agents.prediction import prediction_loss

ACTIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-1, 1, (2,), np.float32),
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([3, 2]),
    "multi-binary": spaces.MultiBinary(3),
}


class Alternating(gym.Env[Any, Any]):
    """Shows two vectors drawn at random by turns: to foresee the next takes a memory of the last
    but one. Earns noise."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.shown = self.np_random.choice((-1, 1), (2, 3)).astype(np.float32)
        self.steps = 0
        return self.shown[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        noise = float(self.np_random.normal())
        return self.shown[self.steps % 2], noise, self.steps == 20, False, {}


def alternating(actions: str) -> DummyVecEnv:
    return DummyVecEnv([lambda: Alternating(ACTIONS[actions])] * 4)


def segment() -> tuple[Tensor, Tensor]:
    """Features (2, 5, 3), and starts in the middle of the first environment."""
    features_BTF = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    starts_BT = torch.zeros(2, 5, dtype=torch.bool)
    starts_BT[0, 2] = True
    return features_BTF, starts_BT


def test_a_perfect_prediction_costs_nothing_and_the_mean_costs_1() -> None:
    features_BTF, _ = segment()
    starts_BT = torch.zeros(2, 5, dtype=torch.bool)
    shifted_BTF = features_BTF.roll(-1, 1)
    assert prediction_loss(shifted_BTF, features_BTF, starts_BT).item() == 0
    mean_BTF = features_BTF[:, 1:].mean((0, 1)).expand(2, 5, 3)
    assert prediction_loss(mean_BTF, features_BTF, starts_BT).item() == pytest.approx(1)


def test_first_observations_are_no_part_of_the_mean() -> None:
    features_BTF = torch.tensor([100.0, -1, 1, -1, 1]).repeat(2)[None, :, None]
    starts_BT = (features_BTF == 100)[..., 0]
    mean_BTF = torch.zeros(1, 10, 1)
    assert prediction_loss(mean_BTF, features_BTF, starts_BT).item() == pytest.approx(1)


def test_nothing_is_predicted_across_an_episode_start_or_the_end_of_the_segment() -> None:
    features_BTF, starts_BT = segment()
    predicted_BTF = torch.randn(2, 5, 3)
    loss = prediction_loss(predicted_BTF, features_BTF, starts_BT)
    predicted_BTF[0, 1] = 100.0  # its successor begins an episode
    predicted_BTF[:, -1] = 100.0
    assert prediction_loss(predicted_BTF, features_BTF, starts_BT) == loss
    predicted_BTF[1, 1] = 100.0
    assert prediction_loss(predicted_BTF, features_BTF, starts_BT) > loss


def test_no_gradient_reaches_what_is_predicted() -> None:
    features_BTF, starts_BT = segment()
    predicted_BTF = torch.zeros(2, 5, 3, requires_grad=True)
    prediction_loss(predicted_BTF, features_BTF.requires_grad_(), starts_BT).backward()  # type: ignore[no-untyped-call]
    assert features_BTF.grad is None and predicted_BTF.grad is not None


def test_a_segment_that_never_changes_has_a_finite_loss() -> None:
    same_BTF = torch.ones(2, 5, 3)
    starts_BT = torch.zeros(2, 5, dtype=torch.bool)
    assert prediction_loss(same_BTF, same_BTF, starts_BT).item() == 0
    assert prediction_loss(same_BTF + 0.1, same_BTF, starts_BT).item() == pytest.approx(1)
    assert prediction_loss(same_BTF, same_BTF, ~starts_BT).item() == 0


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])
def test_every_action_space_is_predicted_from(algorithm: Any, actions: str, tmp_path: Path) -> None:
    model = algorithm("MlpPolicy", alternating(actions), n_steps=20, prediction_coef=1.0)
    before = [weight.clone() for weight in model.policy.predictor.parameters()]
    model.learn(160)
    after = list(model.policy.predictor.parameters())
    assert all((old != new).any() for old, new in zip(before, after, strict=True))
    model.save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip", env=alternating(actions))
    assert loaded.prediction_coef == 1.0
    assert loaded.policy.predictor is not None
    loaded.learn(80)


def prediction_error(memory: str) -> float:
    """How far off predictions are after some learning."""
    model = MemoryPPO(
        "MlpPolicy",
        alternating("discrete"),
        memory=memory,
        memory_kwargs={"width": 32},
        n_steps=64,
        prediction_coef=1.0,
        seed=0,
    )
    model.learn(5_000)
    segment = model.rollout_buffer.segment(np.arange(model.n_envs))
    loss = model.policy.evaluate_rollout(
        segment.observations, segment.actions, segment.state, segment.episode_starts
    ).prediction_loss
    assert loss is not None
    return loss.item()


def test_what_is_remembered_is_predicted_and_only_with_a_memory() -> None:
    assert prediction_error("expire-span") < 0.1
    assert prediction_error("none") > 0.5


def test_without_a_coefficient_nothing_is_predicted() -> None:
    model = MemoryPPO("MlpPolicy", alternating("discrete"), n_steps=20)
    assert model.policy.predictor is None


@pytest.mark.parametrize("coef", [-1.0, float("nan"), float("inf")])
def test_a_coefficient_out_of_bounds_is_refused(coef: float) -> None:
    with pytest.raises(ValueError, match=r"prediction_coef = .* use 0 or more"):
        MemoryPPO("MlpPolicy", alternating("discrete"), prediction_coef=coef)

"""Agents that are loaded with other options, and options that change as training goes on.

B environments, T steps of a rollout.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from expire_span.agents import MemoryA2C, MemoryPPO, NonFiniteError
from expire_span.agents.span_control import ConstantSpanControl

SMALL: dict[str, Any] = {"memory_kwargs": {"width": 16}, "seed": 0}
B, T = 2, 16

for_both_algorithms = pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])
for_both_ways = pytest.mark.parametrize(
    "given",
    [lambda **changes: changes, lambda **changes: {"custom_objects": changes}],
    ids=["kwargs", "custom_objects"],
)


def build(algorithm: Any = MemoryPPO, **kwargs: Any) -> Any:
    kwargs = {"n_envs": B, "n_steps": T} | SMALL | kwargs
    return algorithm("MlpPolicy", "CartPole-v1", **kwargs)


def parameters(model: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


# schedules


def test_an_agent_loaded_to_play_needs_no_schedules(tmp_path: Path) -> None:
    """As its files are loaded from the Hugging Face hub."""
    build().save(tmp_path / "model")
    none = {
        "learning_rate": 0.0,
        "lr_schedule": lambda _: 0.0,
        "clip_range": lambda _: 0.0,
        "clip_range_vf": lambda _: 0.0,
    }
    for loaded in (
        MemoryPPO.load(tmp_path / "model", env="CartPole-v1", custom_objects=none),
        MemoryPPO.load(tmp_path / "model", env="CartPole-v1", clip_range=lambda _: 0.0),
    ):
        assert loaded.predict(np.zeros((3, 4), np.float32))[0].shape == (3,)
        loaded.learn(B * T)
    for constant in ({"clip_range": 0.0}, {"clip_range_vf": -1}):
        with pytest.raises(ValueError, match=r"clip_range.* = .* must be above 0"):
            MemoryPPO.load(tmp_path / "model", **constant)


@pytest.mark.parametrize("option", ["learning_rate", "clip_range", "clip_range_vf"])
def test_schedules_may_begin_at_0(option: str) -> None:
    asked: list[float] = []

    def warm_up(left: float) -> float:
        asked.append(left)
        return 0.2 * (1 - left)

    before = parameters(model := build(**{option: warm_up}))
    if option != "learning_rate":
        assert not asked
    assert not equal(before, parameters(model.learn(2 * B * T)))
    assert {0.5, 0} <= set(asked)


@pytest.mark.parametrize(
    ("algorithm", "option"),
    [
        (MemoryPPO, "learning_rate"),
        (MemoryA2C, "learning_rate"),
        (MemoryPPO, "clip_range"),
        (MemoryPPO, "clip_range_vf"),
    ],
)
@pytest.mark.parametrize(
    ("schedule", "value"),
    [
        (lambda left: left - 0.75, -0.25),
        (lambda left: 0.1 if left == 1 else float("nan"), float("nan")),
    ],
)
def test_schedules_that_leave_their_bounds_are_named_when_they_do(
    algorithm: Any, option: str, schedule: Callable[[float], float], value: float
) -> None:
    model = build(algorithm, **{option: schedule})
    message = rf"{option} = {value} where progress_remaining = 0\.5; let the schedule return 0 or"
    with pytest.raises(ValueError, match=message) as raised:
        model.learn(2 * B * T)
    assert not isinstance(raised.value, NonFiniteError)


# what is changed by keyword and by custom_objects


@for_both_ways
def test_options_of_spans_take_effect_when_loaded(given: Any, tmp_path: Path) -> None:
    build().save(tmp_path / "model")

    def control(**changes: Any) -> Any:
        return MemoryPPO.load(tmp_path / "model", **given(**changes)).span_control

    assert control(span_coef=1e-3) == ConstantSpanControl(1e-3)
    assert control(target_live=3).target_live(1.0) == 3
    assert control(use_by="influence").use_by == "influence"
    with pytest.raises(ValueError, match="span_coef = -3 must be"):
        control(span_coef=-3)
    with pytest.raises(ValueError, match="use_by = 'influence' changes nothing with span_coef = 1"):
        control(span_coef=1, use_by="influence")


@for_both_ways
@pytest.mark.parametrize(
    ("algorithm", "change"),
    [
        (MemoryPPO, {"memory": "lstm"}),
        (MemoryPPO, {"memory_kwargs": {"width": 16}}),
        (MemoryPPO, {"prediction_coef": 0.5}),
        (MemoryA2C, {"use_rms_prop": True}),
    ],
)
def test_what_an_agent_is_made_with_cannot_be_changed(
    algorithm: Any, change: dict[str, Any], given: Any, tmp_path: Path
) -> None:
    build(algorithm).save(tmp_path / "model")
    with pytest.raises(ValueError, match=f"load cannot change {next(iter(change))}: the network"):
        algorithm.load(tmp_path / "model", **given(**change))


@for_both_ways
def test_a_seed_given_when_loading_is_the_one_that_counts(given: Any, tmp_path: Path) -> None:
    build().save(tmp_path / "model")

    def learned(**changes: Any) -> dict[str, Tensor]:
        model = MemoryPPO.load(tmp_path / "model", "CartPole-v1", **changes)
        return parameters(model.learn(B * T, reset_num_timesteps=False))

    assert equal(learned(**given(seed=3)), learned(seed=3))
    assert not equal(learned(**given(seed=3)), learned(**given(seed=4)))
    with pytest.raises(ValueError, match="seed = -1 is out of bounds"):
        learned(**given(seed=-1))


@for_both_ways
@for_both_algorithms
@pytest.mark.parametrize(
    "policy_kwargs",
    [None, {}, {"net_arch": [8]}, {"optimizer_kwargs": {"weight_decay": 0.1}}],
)
def test_the_policy_kwargs_of_the_constructor_may_be_given_again(
    algorithm: Any, policy_kwargs: dict[str, Any] | None, given: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"use_rms_prop": True} if algorithm is MemoryA2C else {}
    model = build(algorithm, policy_kwargs=policy_kwargs, **options)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", **given(policy_kwargs=policy_kwargs))
    assert loaded.policy_kwargs == model.policy_kwargs
    assert equal(parameters(loaded), parameters(model))
    again = algorithm.load(tmp_path / "model", **given(policy_kwargs=model.policy_kwargs))
    assert again.policy_kwargs == model.policy_kwargs


def test_other_policy_kwargs_than_those_saved_are_refused(tmp_path: Path) -> None:
    build(policy_kwargs={"net_arch": [8]}).save(tmp_path / "model")
    for other in ({"net_arch": [9]}, {}, {"net_arch": [8], "memory": "lstm"}):
        with pytest.raises(ValueError, match="policy kwargs do not equal the stored"):
            MemoryPPO.load(tmp_path / "model", policy_kwargs=other)

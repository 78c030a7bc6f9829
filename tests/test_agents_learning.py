"""Training solves a task that needs a memory, and only with one."""

from __future__ import annotations

from typing import Any

import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from expire_span.agents import MemoryPPO, make_vec_env
from expire_span.memory import MEMORIES
from expire_span.training.evaluation import evaluate_retention

N_STEPS = 20_480
"""Ten of ten seeds tried earn 1.0 with their likeliest actions after 16,384 steps already."""


def corridors(seed: int) -> VecEnv:
    """Where a memory earns 1 and no policy without one more than 0.5 on average."""
    return make_vec_env(
        "expire_span.envs:ExpireSpan/Corridor-v0",
        32,
        seed=seed,
        env_kwargs={"min_length": 3, "max_length": 6},
    )


def success_rates(memory: str, options: dict[str, Any]) -> tuple[float, float]:
    """Of 400 fresh episodes each, with the likeliest actions and with sampled ones."""
    model = MemoryPPO(
        "MlpPolicy",
        corridors(seed=0),
        memory=memory,
        memory_kwargs={"width": 32} | options,
        n_steps=32,
        learning_rate=lambda remaining: 1e-3 * remaining,
        seed=0,
    )
    model.learn(N_STEPS)
    likeliest, sampled = (
        float(evaluate_policy(model, corridors(seed=1000), 400, deterministic=choice)[0])  # type: ignore[arg-type]
        for choice in (True, False)
    )
    return likeliest, sampled


def test_a_memory_solves_the_corridor_and_its_control_without_one_does_not() -> None:
    likeliest, sampled = success_rates("expire-span", {"max_span": 64, "ramp": 8})
    assert likeliest >= 0.95 and sampled >= 0.9
    assert max(success_rates("none", {})) < 0.65


LEAST: dict[str, dict[str, Any]] = {
    "expire-span": {"max_span": 64, "ramp": 8},
    "transformer-xl": {"window": 32},
    "adaptive-span": {"max_span": 64, "ramp": 8},
    "compressive": {"window": 16},
}
"""Options of memories for corridors so short."""

SLOWER = {"lstm": 3 * N_STEPS}
"""Steps until success where `N_STEPS` are too few."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("memory", sorted(MEMORIES.keys() - {"none"}))
def test_a_solved_task_stays_solved_ten_times_as_long(memory: str) -> None:
    """With a learning rate that does not fall, and the retention control pressing all the time."""
    model = MemoryPPO(
        "MlpPolicy",
        corridors(seed=0),
        memory=memory,
        memory_kwargs={"width": 32} | LEAST.get(memory, {}),
        n_steps=32,
        seed=0,
    )
    solved = SLOWER.get(memory, N_STEPS)
    model.learn(solved)
    for _ in range(10):
        model.learn(solved, reset_num_timesteps=False)
        figures = evaluate_retention(model, corridors(seed=1000), 400).figures()
        assert figures["success_rate"] >= 0.98
        assert (figures["cue_recall"] is None) == (memory in ("gru", "lstm"))
        assert figures["cue_recall"] is None or figures["cue_recall"] >= 0.99

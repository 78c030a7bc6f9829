"""Callbacks, evaluation and logging, of Stable-Baselines3 and Weights & Biases."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from expire_span.agents import MemoryA2C, MemoryPPO, make_vec_env
from expire_span.agents.retention import MEASURED
from expire_span.memory import MEMORIES

CORRIDOR = "expire_span.envs:ExpireSpan/Corridor-v0"
SHORT: dict[str, Any] = {"min_length": 3, "max_length": 6}
B, T = 4, 16

for_both_algorithms = pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])


def corridors(n: int = B, seed: int | None = 0) -> VecEnv:
    return make_vec_env(CORRIDOR, n, seed=seed, env_kwargs=SHORT)


def build(algorithm: Any = MemoryPPO, env: VecEnv | None = None, **kwargs: Any) -> Any:
    kwargs = {"memory_kwargs": {"width": 16}, "n_steps": T, "seed": 0, **kwargs}
    return algorithm("MlpPolicy", corridors() if env is None else env, **kwargs)


def parameters(model: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


# evaluation


def returns_by_hand(model: Any, n_episodes: int, seed: int) -> list[float]:
    """One single environment, in the loop of the documentation."""
    env = gym.make(CORRIDOR, **SHORT)
    returns = []
    for episode in range(n_episodes):
        obs, _ = env.reset(seed=seed if episode == 0 else None)
        state, total, over = None, 0.0, False
        while not over:
            action, state = model.predict(obs, state=state, deterministic=True)
            obs, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


@pytest.mark.parametrize("memory", MEMORIES)
def test_evaluate_policy_passes_the_memory_on_as_a_loop_by_hand_does(memory: str) -> None:
    model = build(memory=memory)
    model.learn(B * T)
    by_hand = returns_by_hand(model, 6, seed=5)
    one = make_vec_env(CORRIDOR, 1, seed=5, env_kwargs=SHORT)
    assert evaluate_policy(model, one, 6, return_episode_rewards=True)[0] == by_hand
    several: Any = evaluate_policy(model, corridors(3), 9, return_episode_rewards=True)
    returns, lengths = several
    assert len(returns) == len(lengths) == 9 and min(lengths) >= 3


@for_both_algorithms
def test_eval_callback_measures_and_leaves_training_as_it_was(
    algorithm: Any, tmp_path: Path
) -> None:
    alone = build(algorithm).learn(4 * B * T)
    watched = build(algorithm)  # which seeds torch anew
    callback = EvalCallback(
        corridors(2, seed=7),
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        n_eval_episodes=4,
        eval_freq=T,
        verbose=0,
    )
    watched.learn(4 * B * T, callback=callback)
    assert equal(parameters(alone), parameters(watched))
    with np.load(tmp_path / "evaluations.npz") as evaluations:
        assert evaluations["results"].shape == (4, 4)
        assert "successes" in evaluations  # the corridor says is_success
    best = algorithm.load(tmp_path / "best_model")
    assert evaluate_policy(best, corridors(2), 2)[0] in (0.0, 0.5, 1.0)


def test_eval_callback_shares_the_normalisation_learned() -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1", B, seed=0))
    eval_env = VecNormalize(make_vec_env("Pendulum-v1", 1, seed=0), training=False)
    model = build(env=env)
    model.learn(2 * B * T, callback=EvalCallback(eval_env, n_eval_episodes=1, eval_freq=T))
    ours, theirs = eval_env.obs_rms, env.obs_rms
    assert isinstance(ours, RunningMeanStd) and isinstance(theirs, RunningMeanStd)
    np.testing.assert_array_equal(ours.mean, theirs.mean)


# other callbacks


@for_both_algorithms
def test_checkpoints_are_written_and_load(algorithm: Any, tmp_path: Path) -> None:
    model = build(algorithm)
    model.learn(4 * B * T, callback=CheckpointCallback(2 * T, str(tmp_path), verbose=0))
    names = sorted(path.name for path in tmp_path.glob("*.zip"))
    assert names == [f"rl_model_{2 * B * T}_steps.zip", f"rl_model_{4 * B * T}_steps.zip"]
    first = algorithm.load(tmp_path / names[0], env=corridors())
    assert first.num_timesteps == 2 * B * T
    assert first.learn(B * T, reset_num_timesteps=False).num_timesteps == 3 * B * T


class StopAfter(BaseCallback):
    """Stops in the middle of a rollout."""

    def _on_step(self) -> bool:
        return self.n_calls < T + T // 2


@for_both_algorithms
def test_callbacks_stop_training_which_can_then_go_on(algorithm: Any) -> None:
    model = build(algorithm)
    episodes = StopTrainingOnMaxEpisodes(max_episodes=10_000)
    model.learn(100 * B * T, callback=CallbackList([StopAfter(), episodes]))
    assert model.num_timesteps == B * (T + T // 2)
    before = parameters(model)
    model.learn(2 * B * T, reset_num_timesteps=False)
    assert not equal(before, parameters(model))
    assert model.num_timesteps == B * (3 * T + T // 2)


class Looks(BaseCallback):
    """Remembers what is to be seen at every step, and at the end of a rollout."""

    def _on_training_start(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        self.seen.append(dict(self.locals))
        return True

    def _on_rollout_end(self) -> None:
        self.seen.append(dict(self.locals))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_callbacks_see_what_they_see_in_sb3(env_id: str) -> None:
    ours, theirs = Looks(), Looks()
    model = build(env=make_vec_env(env_id, B, seed=0))
    with torch.no_grad():
        model.policy.get_parameter("value_net.weight").normal_()  # values that differ
    model.learn(B * T, callback=ours)
    sb3s = PPO("MlpPolicy", make_vec_env(env_id, B), n_steps=T, batch_size=B * T, device="cpu")
    sb3s.learn(B * T, callback=theirs)
    assert len(ours.seen) == len(theirs.seen) == T + 1
    for mine, their in ((ours.seen[0], theirs.seen[0]), (ours.seen[-1], theirs.seen[-1])):
        for name in their.keys() - {"self", "rollout_buffer", "idx", "done", "n_steps"}:
            if not (name == "actions" and their is theirs.seen[-1]):  # SB3 reshapes those of a step
                assert type(mine[name]) is type(their[name]), name
                assert np.shape(mine[name]) == np.shape(their[name]), name
    assert [seen["n_steps"] for seen in ours.seen[:T]] == [*range(T)]
    for name in ("values", "log_probs"):
        said_TB = torch.stack([seen[name].view(B) for seen in ours.seen[:T]])
        np.testing.assert_array_equal(said_TB, getattr(model.rollout_buffer, name))
    for seen in ours.seen[:T]:
        low, high = (-2, 2) if env_id == "Pendulum-v1" else (0, 1)
        np.testing.assert_array_equal(seen["clipped_actions"], seen["actions"].clip(low, high))


def test_a_progress_bar_can_be_shown(capfd: pytest.CaptureFixture[str]) -> None:
    model = build(verbose=1)
    model.learn(2 * B * T, progress_bar=True)
    out = capfd.readouterr()
    assert f"{2 * B * T}/{2 * B * T}" in out.out + out.err
    assert "rollout/" in out.out and "memory/" in out.out


@pytest.mark.parametrize(
    ("algorithm", "memory"), [*((MemoryPPO, name) for name in MEMORIES), (MemoryA2C, "expire-span")]
)
def test_every_rollout_is_logged(algorithm: Any, memory: str, tmp_path: Path) -> None:
    model = build(algorithm, memory=memory, n_steps=64)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(3 * B * 64)
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["time/total_timesteps"]) for row in rows] == [64 * B, 2 * 64 * B, 3 * 64 * B]
    last = {key: float(value) for key, value in rows[-1].items() if value}
    assert np.isfinite(list(last.values())).all()
    assert {"rollout/ep_rew_mean", "rollout/success_rate", "memory/bytes"} <= last.keys()
    assert {"train/value_loss", "train/entropy_loss", "train/explained_variance"} <= last.keys()
    if memory == "expire-span":
        assert last["memory/bytes"] > 0 and last["memory/live_mean"] > 0
        assert {"memory/span_mean_layer1", "memory/evicted", "memory/span_coef"} <= last.keys()
        assert 0 <= last["retention/precision"] <= 1
        said = {key.removeprefix("retention/") for key in last if key.startswith("retention/")}
        assert said == set(MEASURED)  # names that no tally may have


def test_tensorboard_files_are_written(tmp_path: Path) -> None:
    build(tensorboard_log=str(tmp_path)).learn(B * T, log_interval=1)
    assert list(tmp_path.glob("MemoryPPO_1/events.out.tfevents.*"))


def test_wandb_callback_of_wandb_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    from wandb.integration.sb3 import WandbCallback

    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(mode="offline", dir=str(tmp_path), project="test")
    try:
        model = build()
        callback = WandbCallback(
            gradient_save_freq=1, model_save_path=str(tmp_path), model_save_freq=T, verbose=0
        )
        model.learn(2 * B * T, callback=callback)
        assert run.config["algo"] == "MemoryPPO" and run.config["n_steps"] == T
    finally:
        wandb.finish()
    loaded = MemoryPPO.load(tmp_path / "model.zip")
    assert equal(parameters(loaded), parameters(model))
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))

"""Environment steps per second, learning included, beside sb3-contrib's RecurrentPPO and SB3's PPO.

    python benchmarks/throughput.py            # writes docs/benchmarks/throughput.md

Every agent learns on the same environments with the same rollouts (16 environments x 128 steps x 4
epochs, minibatches of 512), in one process, one after the other, round after round: the load of the
machine is the same for all, and the medians of the rounds are compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

import expire_span.envs  # noqa: F401  (registers the environments)
from expire_span.agents import MemoryPPO, make_vec_env
from runs import command, machine, write

ROLLOUT: dict[str, Any] = {"n_steps": 128, "n_epochs": 4, "batch_size": 512, "seed": 0}
N_ENVS = 16


@dataclass(frozen=True)
class Options:
    """What to measure."""

    envs: tuple[str, ...] = ("ExpireSpan/Corridor-v0", "MiniGrid-MemoryS13Random-v0")
    """Environment ids."""
    rounds: int = 5
    """Measurements of each agent; the medians are reported."""
    rollouts: int = 5
    """Rollouts, each with its update, per measurement."""
    warm_up: int = 25
    """Rollouts each agent learns before it is measured, so that memories have found their size."""
    threads: int = 1
    """CPU threads PyTorch may use."""
    device: str = "cpu"
    """PyTorch device."""
    out: Path = field(default=Path("docs/benchmarks/throughput.md"))
    """File the table is written to."""


def agents(env_id: str, device: str) -> dict[str, OnPolicyAlgorithm]:
    """One agent of each kind, with environments of its own."""

    def memory_ppo(memory: str, **options: Any) -> OnPolicyAlgorithm:
        env = make_vec_env(env_id, N_ENVS, seed=0)
        return MemoryPPO(
            "MlpPolicy", env, memory=memory, memory_kwargs=options, device=device, **ROLLOUT
        )

    def peer(cls: Callable[..., OnPolicyAlgorithm], policy: str, **kwargs: Any) -> Any:
        env = make_vec_env(env_id, N_ENVS, seed=0)
        return cls(policy, env, device=device, policy_kwargs=kwargs, **ROLLOUT)

    return {
        "MemoryPPO, expire-span (width 64, 2 layers)": memory_ppo("expire-span"),
        "MemoryPPO, lstm (width 64)": memory_ppo("lstm"),
        "MemoryPPO, none": memory_ppo("none"),
        "sb3-contrib RecurrentPPO (LSTM 64)": peer(
            RecurrentPPO, "MlpLstmPolicy", lstm_hidden_size=64
        ),
        "SB3 PPO (MlpPolicy, no memory)": peer(PPO, "MlpPolicy"),
    }


def measure(env_id: str, options: Options) -> list[str]:
    """Rows of the table for one environment."""
    per_rollout = N_ENVS * ROLLOUT["n_steps"]
    models = agents(env_id, options.device)
    for model in models.values():
        model.learn(options.warm_up * per_rollout)
    rates: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(options.rounds):
        for name, model in models.items():
            began = time.perf_counter()
            model.learn(options.rollouts * per_rollout, reset_num_timesteps=False)
            rates[name].append(options.rollouts * per_rollout / (time.perf_counter() - began))
    base = next(name for name in models if "RecurrentPPO" in name)
    rows = []
    for name, rate in rates.items():
        ratio = statistics.median(
            mine / theirs for mine, theirs in zip(rate, rates[base], strict=True)
        )
        spread = f"{min(rate):,.0f} to {max(rate):,.0f}"
        rows.append(
            f"| {env_id} | {name} | {statistics.median(rate):,.0f} | {spread} | {ratio:.2f} |"
        )
        print(rows[-1], flush=True)
    return rows


def main(options: Options) -> None:
    """Measure every environment and write the table."""
    torch.set_num_threads(options.threads)
    rows = [row for env_id in options.envs for row in measure(env_id, options)]
    text = f"""# Throughput

Written by {command()}: {N_ENVS} environments x {ROLLOUT["n_steps"]} steps x {ROLLOUT["n_epochs"]}
epochs, minibatches of {ROLLOUT["batch_size"]}, learning included; medians of {options.rounds}
rounds of {options.rollouts} rollouts after {options.warm_up} of warm-up,
{options.threads} thread(s), {options.device}.
{machine()}.

| environment | agent | steps/s | lowest to highest | x RecurrentPPO, same round |
|---|---|---|---|---|
"""
    write(options.out, text + "\n".join(rows) + "\n")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""The library's defaults on tasks nothing was tuned for, beside SB3's PPO, A2C and RecurrentPPO.

    python benchmarks/classic_control.py       # writes docs/benchmarks/classic_control.md

Every agent has its library's defaults, but 8 environments, 128 steps a rollout with PPO and, on
Pendulum, gamma 0.9. A run whose file is there is not repeated. Rows show the runs there are.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from expire_span.agents import MemoryA2C, MemoryPPO, make_vec_env
from runs import check_known, machine, write

N_ENVS = 8
ROLLOUT: dict[str, Any] = {"n_steps": 128}
"""Options of every agent that learns by PPO; A2C's rollouts are as long as by default."""


class Positions(gym.ObservationWrapper[NDArray[np.float32], Any, NDArray[np.float32]]):
    """The entries of an observation that are no velocities, so that those must be inferred."""

    def __init__(self, env: gym.Env[Any, Any], entries: tuple[int, ...]) -> None:
        super().__init__(env)
        self.entries = list(entries)
        space: Any = env.observation_space
        self.observation_space = gym.spaces.Box(space.low[self.entries], space.high[self.entries])

    def observation(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The entries kept."""
        return observation[self.entries]


@dataclass(frozen=True)
class Task:
    """An environment and what is particular about learning it."""

    env_id: str
    positions: tuple[int, ...] = ()
    """Entries of the observation that are shown; none: all."""
    agent: dict[str, Any] = field(default_factory=dict)
    """Options of every agent."""

    def wrapper(self, env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        """What the agents play in."""
        return Positions(env, self.positions) if self.positions else env


TASKS: dict[str, Task] = {
    "CartPole-v1": Task("CartPole-v1"),
    "CartPole-v1, no velocities": Task("CartPole-v1", (0, 2)),
    "Acrobot-v1": Task("Acrobot-v1"),
    "Pendulum-v1": Task("Pendulum-v1", agent={"gamma": 0.9}),
}

AGENTS: dict[str, tuple[type[OnPolicyAlgorithm], str, dict[str, Any]]] = {
    "MemoryPPO, expire-span": (MemoryPPO, "MlpPolicy", ROLLOUT),
    "sb3-contrib RecurrentPPO": (RecurrentPPO, "MlpLstmPolicy", ROLLOUT),
    "SB3 PPO": (PPO, "MlpPolicy", ROLLOUT),
    "MemoryA2C, expire-span": (MemoryA2C, "MlpPolicy", {}),
    "SB3 A2C": (A2C, "MlpPolicy", {}),
}
"""Class, policy and options."""


@dataclass(frozen=True)
class Options:
    """What to run."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks."""
    agents: tuple[str, ...] = tuple(AGENTS)
    """Agents."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds."""
    steps: int = 100_000
    """Environment steps of a run."""
    runs: Path = field(default=Path("runs/benchmark_classic_control"))
    """Folder of the results, one file a run."""
    out: Path = field(default=Path("docs/benchmarks/classic_control.md"))
    """File the table is written to."""


def result_file(options: Options, task: str, agent: str, seed: int | str) -> Path:
    """Where the result of a run lies."""
    return options.runs / f"{task}_{agent}_{options.steps}_{seed}.json"


def learn(task: str, agent: str, seed: int, steps: int, file: Path) -> None:
    """Do one run, unless its file is there: the mean return of its last 100 episodes, and speed."""
    if file.exists():
        return
    torch.set_num_threads(1)
    env = make_vec_env(TASKS[task].env_id, N_ENVS, seed, wrapper_class=TASKS[task].wrapper)
    make, policy, own = AGENTS[agent]
    model = make(policy, env, seed=seed, device="cpu", **own, **TASKS[task].agent)
    began = time.perf_counter()
    model.learn(steps)
    rate = model.num_timesteps / (time.perf_counter() - began)
    assert model.ep_info_buffer is not None
    returns = [float(episode["r"]) for episode in model.ep_info_buffer]
    if not returns:
        raise SystemExit(f"steps = {steps}: no episode of {task} has ended; use more --steps")
    write(file, json.dumps({"return": statistics.mean(returns), "steps_per_second": rate}))


def table(options: Options) -> str:
    """A row for every agent on every task that has been run."""
    rows = []
    for task in TASKS:
        for agent in AGENTS:
            files = sorted(options.runs.glob(result_file(options, task, agent, "*").name))
            results = [json.loads(file.read_text()) for file in files]
            if not results:
                continue
            returns = [result["return"] for result in results]
            rate = statistics.median(result["steps_per_second"] for result in results)
            spread = f"{min(returns):,.0f} to {max(returns):,.0f}"
            median = statistics.median(returns)
            rows.append(
                f"| {task} | {agent} | {len(files)} | {median:,.0f} | {spread} | {rate:,.0f} |"
            )
    return "\n".join(rows) + "\n"


def main(options: Options) -> None:
    """Do the runs that are missing and write the table."""
    check_known("tasks", options.tasks, tuple(TASKS))
    check_known("agents", options.agents, tuple(AGENTS))
    for seed in options.seeds:
        for task in options.tasks:
            for agent in options.agents:
                file = result_file(options, task, agent, seed)
                learn(task, agent, seed, options.steps, file)
                write_table(options)
                print(f"done: {file.stem}", flush=True)


def write_table(options: Options) -> None:
    """Write the table of the runs there are."""
    text = f"""# Classic control

Written by `python benchmarks/classic_control.py --steps {options.steps}`: tasks nothing here was tuned for, each library's
defaults but {N_ENVS} environments, {ROLLOUT["n_steps"]} steps a rollout with PPO and gamma 0.9 on Pendulum, {options.steps:,}
steps. Return: of the last 100 training episodes, with actions drawn; median of the seeds, lowest to
highest. Steps/s: learning included, one core each, beside other runs or not; {machine()}.

| task | agent | seeds | return | lowest to highest | steps/s |
|---|---|---|---|---|---|
"""
    write(options.out, text + table(options))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

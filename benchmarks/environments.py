"""Steps per second of the native vector forms: 64 environments, random actions, one process.

python benchmarks/environments.py        # writes docs/benchmarks/environments.md
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tyro

from expire_span.envs import ENVIRONMENTS
from runs import machine


@dataclass(frozen=True)
class Options:
    """What to measure."""

    n_envs: int = 64
    """Environments side by side."""
    steps: int = 2000
    """Steps of each of them per measurement."""
    repeats: int = 5
    """Measurements of each environment, in turn; the median counts."""
    out: Path = field(default=Path("docs/benchmarks/environments.md"))
    """File the table is written to."""


def steps_per_second(env_id: str, options: Options) -> float:
    """One measurement, resets included."""
    env: Any = gymnasium.make_vec(
        env_id, num_envs=options.n_envs, vectorization_mode="vector_entry_point"
    ).unwrapped
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(100)]
    env.reset(seed=0)
    began = time.perf_counter()
    for step in range(options.steps):
        env.step(actions[step % len(actions)])
    return options.n_envs * options.steps / (time.perf_counter() - began)


def main(options: Options) -> None:
    """Measure all environments in turn, several times, and write the table."""
    rates = np.array(
        [
            [steps_per_second(env_id, options) for env_id in ENVIRONMENTS]
            for _ in range(options.repeats)
        ]
    )
    rows = [
        f"| `{env_id}` | {statistics.median(column):,.0f} | {min(column):,.0f} |"
        for env_id, column in zip(ENVIRONMENTS, rates.T.tolist(), strict=True)
    ]
    text = f"""# Steps per second of the environments

Written by `python benchmarks/environments.py`: native vector forms, {options.n_envs} environments, random
actions, resets included, one process, no learning; environment steps per second, the median and the
lowest of {options.repeats} measurements taken in turn. {machine()}.

| id | steps/s | lowest |
|---|---|---|
"""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + "\n".join(rows) + "\n")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

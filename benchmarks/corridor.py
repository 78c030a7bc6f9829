"""Every memory on Corridor: steps to 99 % success, final success, live memories.

    python benchmarks/corridor.py              # all runs, then docs/benchmarks/corridor.md
    python benchmarks/corridor.py --seeds 0 1 --memories expire-span none --algos ppo

Each run is one `train_rl.py` with the corridor's preset, under --runs; see `runs` for how a
benchmark is gone on with. Rows of the table there is stay until as many seeds have been run.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from expire_span.training.metrics_csv import read_metrics
from runs import (
    SUCCESS,
    Cells,
    Run,
    check_known,
    machine,
    steps_to,
    table_lines,
    train_all,
    with_earlier,
    write,
)

VARIANTS: dict[str, tuple[str, ...]] = {
    "expire-span": ("--memory", "expire-span"),
    "transformer-xl-16": ("--memory", "transformer-xl", "--window", "16"),
    "transformer-xl-64": ("--memory", "transformer-xl", "--window", "64"),
    "transformer-xl-200": ("--memory", "transformer-xl", "--window", "200"),
    "adaptive-span": ("--memory", "adaptive-span"),
    "compressive": ("--memory", "compressive"),
    "lstm": ("--memory", "lstm"),
    "gru": ("--memory", "gru"),
    "none": ("--memory", "none", "--no-eval-deterministic"),
}
"""The memories compared, with the options that make them."""

ALGORITHMS = ("ppo", "a2c")

SOLVED = 0.99


@dataclass(frozen=True)
class Options:
    """What to run."""

    algos: tuple[str, ...] = ALGORITHMS
    """Algorithms."""
    memories: tuple[str, ...] = tuple(VARIANTS)
    """Memories, names as in the table."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds."""
    jobs: int = 1
    """Runs at a time, one core each."""
    runs: Path = field(default=Path("runs/benchmark_corridor"))
    """Folder of the runs."""
    out: Path = field(default=Path("docs/benchmarks/corridor.md"))
    """File the table is written to."""
    machine: str = field(default_factory=machine)
    """What the runs ran on, for the text beside the table; this machine unless it was others."""


def last_success(folder: Path) -> float:
    """Success of the last 100 training episodes, exploration included."""
    rows: Any = [row.get(SUCCESS) for row in read_metrics(folder / "metrics.csv")]
    return float([success for success in rows if success not in (None, "")][-1])


def table_row(name: str, algo: str, folders: Sequence[Path]) -> Cells:
    """One line of the table: all seeds of one memory under one algorithm."""
    results = [json.loads((folder / "evaluation.json").read_text()) for folder in folders]
    success = [result["success_rate"] for result in results]
    solved = [
        steps for folder in folders if (steps := steps_to(SOLVED, SUCCESS, folder)) is not None
    ]
    live = [
        statistics.mean(result["live_memory_mean"]) for result in results
        if result.get("live_memory_mean")
    ]  # fmt: skip
    rate = statistics.median(result["env_steps_per_second"] for result in results)
    return [
        name,
        algo,
        str(len(results)),
        f"{len(solved)} of {len(results)}",
        f"{statistics.median(solved):,.0f}" if solved else "never",
        f"{statistics.median(success):.3f}",
        f"{min(success):.3f}",
        f"{statistics.median(map(last_success, folders)):.2f}",
        f"{statistics.mean(live):.1f}" if live else "",
        f"{rate:,.0f}",
    ]


def evaluated(options: Options, algo: str, variant: str) -> list[Path]:
    """Folders of the runs there are."""
    files = options.runs.glob(f"{algo}_{variant}_*/evaluation.json")
    return sorted(file.parent for file in files)


def write_table(options: Options) -> None:
    """Write the table, anew for every run there is under `options.runs`."""
    order = [(variant, algo) for algo in ALGORITHMS for variant in VARIANTS]
    rows = [
        table_row(variant, algo, folders)
        for variant, algo in order
        if (folders := evaluated(options, algo, variant))
    ]
    text = f"""# Corridor, lengths U(3,200)

Written by `python benchmarks/corridor.py`: the preset's steps (about 300,000 with PPO, 1,000,000 with
A2C), then 1,000 fresh episodes without exploration (`none` draws its actions: its likeliest action
at the junction can be to wait). Solved: 99 % of the last 100 training episodes,
exploration included, had succeeded at some time; steps are the median of the seeds that did. Final
success is the median of the seeds, and the lowest; beside it that of the last 100 training episodes,
exploration included, since an agent that has not learned to choose may wait at the junction for
ever when it always takes its likeliest action. Live memories: mean per layer, the present step
aside, over the evaluation. Steps/s: learning included, one core each; {options.machine}.

| memory | algorithm | seeds | solved | steps to 99 % | final success | lowest | in training | live | steps/s |
|---|---|---|---|---|---|---|---|---|---|
"""
    write(options.out, text + table_lines(with_earlier(options.out, rows, order)))


def main(options: Options) -> None:
    """Run what is missing, seed by seed, and write the table after each run."""
    check_known("algorithms", options.algos, ALGORITHMS)
    check_known("memories", options.memories, tuple(VARIANTS))
    queue = [
        Run(
            options.runs / f"{algo}_{variant}_{seed}",
            [*VARIANTS[variant], "--algo", algo, "--seed", str(seed)],
        )
        for seed in options.seeds
        for algo in options.algos
        for variant in options.memories
    ]
    train_all(queue, options.jobs, lambda: write_table(options))
    print(f"written: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

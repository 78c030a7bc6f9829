"""MiniGrid's memory tasks: success against steps.

    python benchmarks/minigrid_memory.py                  # all runs, then the table and the picture
    python benchmarks/minigrid_memory.py --tasks MemoryS7 --memories expire-span lstm --seeds 0

Each run is one `train_rl.py` with the environment's preset, under --runs; see `runs` for how a
benchmark is gone on with. Rows of the table there is stay until as many seeds have been run.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from expire_span.training.metrics_csv import STEPS, read_metrics
from runs import (
    RETURN,
    Cells,
    Run,
    check_known,
    evaluation,
    finished,
    machine,
    steps_to,
    table_lines,
    train_all,
    with_earlier,
    write,
)

TASKS: dict[str, str] = {
    "MemoryS7": "MiniGrid-MemoryS7-v0",
    "MemoryS9": "MiniGrid-MemoryS9-v0",
    "MemoryS13": "MiniGrid-MemoryS13-v0",
    "MemoryS13Random": "MiniGrid-MemoryS13Random-v0",
}

MEMORIES = ("expire-span", "transformer-xl", "lstm", "none")

SOLVED = 0.95
"""Mean return from which a task counts as solved."""


@dataclass(frozen=True)
class Options:
    """What to run."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks, names as in the table."""
    memories: tuple[str, ...] = MEMORIES
    """Memories."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds."""
    total_timesteps: int | None = None
    """Environment steps of every run; None: as many as its preset has."""
    jobs: int = 1
    """Runs at a time, one core each."""
    runs: Path = field(default=Path("runs/benchmark_minigrid_memory"))
    """Folder of the runs."""
    out: Path = field(default=Path("docs/benchmarks/minigrid_memory.md"))
    """File the table is written to; the picture lies beside it."""


def curve(folder: Path) -> list[tuple[float, float]]:
    """Steps, and mean return of the recent 100 episodes."""
    rows: list[Any] = read_metrics(folder / "metrics.csv")
    return [(row[STEPS], row[RETURN]) for row in rows if RETURN in row]


def folders(options: Options, task: str, memory: str) -> list[Path]:
    """Folders of the runs there are."""
    return finished(options.runs, f"{task}_{memory}_*")


def table_row(task: str, memory: str, runs: list[Path]) -> Cells:
    """One line of the table: all seeds of one memory on one task."""
    results = [evaluation(run) for run in runs]
    returns = [float(result["mean_reward"]) for result in results]
    success = [float(result["success_rate"]) for result in results]
    solved = [steps for run in runs if (steps := steps_to(SOLVED, RETURN, run)) is not None]
    live = [statistics.mean(r["live_memory_mean"]) for r in results if r.get("live_memory_mean")]
    rate = statistics.median(result["env_steps_per_second"] for result in results)
    return [
        task,
        memory,
        str(len(runs)),
        f"{statistics.median(result['env_steps'] for result in results):,.0f}",
        f"{statistics.median(success):.3f}",
        f"{min(success):.3f} to {max(success):.3f}",
        f"{statistics.median(returns):.3f}",
        f"{min(returns):.3f} to {max(returns):.3f}",
        f"{len(solved)} of {len(runs)}",
        f"{statistics.median(solved):,.0f}" if solved else "never",
        f"{statistics.mean(live):.1f}" if live else "",
        f"{rate:,.0f}",
    ]


def write_figure(options: Options) -> None:
    """A panel for each task that has been run, a line for each run, a colour for each memory."""
    tasks = [task for task in TASKS if any(folders(options, task, m) for m in MEMORIES)]
    figure = Figure(figsize=(1.6 + 3.6 * len(tasks), 3.6), layout="constrained")
    panels = figure.subplots(1, max(1, len(tasks)), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=False):
        for number, memory in enumerate(MEMORIES):
            for place, run in enumerate(folders(options, task, memory)):
                if points := curve(run):
                    label = None if place else memory
                    axes.plot(*zip(*points, strict=True), color=f"C{number}", label=label)
        axes.set_title(task)
        axes.set_xlabel("environment steps")
        axes.set_ylim(-0.05, 1.05)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.legend()
    panels[0].set_ylabel("return, mean of 100 episodes")
    figure.savefig(options.out.with_suffix(".png"), dpi=100)


def write_table(options: Options) -> None:
    """Write table and picture of every run there is under `options.runs`."""
    order = [(task, memory) for task in TASKS for memory in MEMORIES]
    rows = with_earlier(
        options.out,
        (
            table_row(task, memory, runs)
            for task, memory in order
            if (runs := folders(options, task, memory))
        ),
        order,
    )
    text = f"""# MiniGrid's memory tasks

Written by `python benchmarks/minigrid_memory.py`: PPO with 64 environments and the environment's preset, which begins with a
hall of 7 cells (each stage ends at 90 % success, after 500,000 steps at the latest), then 1,000 fresh episodes without exploration (`none` draws its actions: without memory and chance it
would stand still before what it cannot know). The return is 1 - 0.9 * steps / limit
for success and 0 otherwise, so a perfect agent is a little below 1. Solved: the mean return of 100
training episodes of the task itself reached 0.95 at some time; the steps to that, those of the curriculum included, are the median
of the seeds that did. Live
memories: mean per layer over the evaluation. Steps/s: learning included, one core each; {machine()}.
Rows whose runs are gone stay; the picture shows the runs there are.

| task | memory | seeds | steps | success | range | return | range | solved | steps to 0.95 | live | steps/s |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""
    write(
        options.out,
        f"{text}{table_lines(rows)}\n![return against steps]({options.out.stem}.png)\n",
    )
    write_figure(options)


def main(options: Options) -> None:
    """Run what is missing, seed by seed, and write the table after each run."""
    check_known("tasks", options.tasks, tuple(TASKS))
    check_known("memories", options.memories, MEMORIES)
    steps = options.total_timesteps
    queue = [
        Run(
            options.runs / f"{task}_{memory}_{seed}",
            [
                *("--env", TASKS[task], "--memory", memory, "--seed", str(seed)),
                *(("--total-timesteps", str(steps)) if steps is not None else ()),
                *(("--no-eval-deterministic",) if memory == "none" else ()),
            ],
        )
        for seed in options.seeds
        for task in options.tasks
        for memory in options.memories
    ]
    train_all(queue, options.jobs, lambda: write_table(options))
    print(f"written: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

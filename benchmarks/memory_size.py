"""The paper's figure: success against live memories, for every memory at several sizes.

    python benchmarks/memory_size.py                 # all runs: days on two cores
    python benchmarks/memory_size.py --tasks corridor --memories expire-span-auto transformer-xl-16

Each run is one `train_rl.py` with the task's preset, under --runs; see `runs` for how a benchmark
is gone on with. Table and picture, docs/benchmarks/memory_size.md and .png, are written after each;
rows of the table there is stay until as many seeds have been run under --runs.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from runs import (
    SUCCESS,
    Cells,
    Rows,
    Run,
    check_known,
    evaluation,
    finished,
    last_logged,
    machine,
    table_lines,
    train_all,
    with_earlier,
    write,
)

TASKS: dict[str, str] = {
    "corridor": "expire_span.envs:ExpireSpan/Corridor-v0",
    "portal": "expire_span.envs:ExpireSpan/Portal-5-v0",
    "instruction": "expire_span.envs:ExpireSpan/Instruction-short-v0",
    "collision": "expire_span.envs:ExpireSpan/Collision-v0",
}
"""The environments, each trained with its preset."""

MEASURES: dict[str, str] = {
    "corridor": "success",
    "portal": "success",
    "instruction": "delivered, of those met",
    "collision": "share of right answers",
}
"""What is shown of each."""


Sizes = tuple[tuple[str, tuple[str, ...]], ...]
"""Of each size its name, and the options that make it."""


def sizes(option: str, *values: int) -> Sizes:
    """A memory at each of the values of its option `--option`."""
    return tuple((f"{option}-{value}", (f"--{option}", str(value))) for value in values)


COEFS: Sizes = tuple((f"coef-{coef}", ("--span-coef", coef)) for coef in ("1e-5", "1e-4", "1e-3"))
AUTO: Sizes = (("auto", ()),)
WIDTHS: Sizes = (("64", ()), ("128", ("--width", "128")))

SIZES: dict[str, dict[str, Sizes]] = {
    "expire-span": {
        "auto": AUTO,
        "room": sizes("max-live", 5, 9, 17, 33, 65),
        "room, late": tuple(
            (f"max-live-{n}-late", ("--max-live", str(n), "--max-live-from", "0.5"))
            for n in (9, 17, 33)
        ),
        "longest span": sizes("max-span", 16, 32, 64, 128, 256),
        "constant": COEFS,
    },
    "transformer-xl": {
        "window": tuple(
            (str(n), ("--window", str(n))) for n in (4, 8, 16, 22, 32, 37, 44, 64, 128, 200)
        )
    },
    "adaptive-span": {
        "auto": AUTO,
        "longest span": sizes("max-span", 32, 64),
        "constant": COEFS,
    },
    "compressive": {
        "window + compressed": tuple(
            (f"{window}+{n}", ("--window", str(window), "--n-compressed", str(n)))
            for window, n in ((8, 8), (16, 16), (20, 20), (32, 32), (64, 32))
        )
    },
    "lstm": {"width": WIDTHS},
    "gru": {"width": WIDTHS},
    "none": {"none": (("0", ("--no-eval-deterministic",)),)},
}
"""Sizes of every memory, by what sets them."""

VARIANTS: dict[str, tuple[str, ...]] = {
    f"{memory}-{size}": ("--memory", memory, *words)
    for memory, kinds in SIZES.items()
    for kind in kinds.values()
    for size, words in kind
}


@dataclass(frozen=True)
class Options:
    """What to run."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks."""
    memories: tuple[str, ...] = tuple(VARIANTS)
    """Memories with their sizes, names as in the table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds."""
    jobs: int = 1
    """Runs at a time, one core each."""
    runs: Path = field(default=Path("runs/benchmark_memory_size"))
    """Folder of the runs."""
    out: Path = field(default=Path("docs/benchmarks/memory_size.md"))
    """File the table is written to; the picture lies beside it."""
    machine: str = field(default_factory=machine)
    """What the runs ran on, for the text beside the table; this machine unless it was others."""


SHARES: dict[str, str] = {"instruction": "delivered", "collision": "right_answers"}
"""What an environment with many tasks in an episode tallies of them: of the instructions whose
character was met those delivered, of the questions those answered rightly."""


def success_of(task: str, result: dict[str, Any]) -> float:
    """Success of an evaluation; where every episode has many tasks, a share of `SHARES`."""
    share = SHARES.get(task)
    return float(result["tallies"][share] if share else result["success_rate"])


def drawn_of(task: str, folder: Path) -> float | None:
    """Success of the last 100 training episodes, whose actions were drawn."""
    share = SHARES.get(task)
    return last_logged(f"retention/{share}" if share else SUCCESS, folder)


def live_of(result: dict[str, Any]) -> float | None:
    """Mean live memories per layer; None for memories without any."""
    live = result.get("live_memory_mean")
    return statistics.mean(live) if live else None


def table_row(task: str, variant: str, runs: list[Path]) -> Cells:
    """One line of the table: all seeds of one memory at one size on one task."""
    results = [evaluation(run) for run in runs]
    success = [success_of(task, result) for result in results]
    drawn = [share for run in runs if (share := drawn_of(task, run)) is not None]
    live = [size for result in results if (size := live_of(result)) is not None]
    rate = statistics.median(result["env_steps_per_second"] for result in results)
    return [
        task,
        variant,
        str(len(results)),
        f"{statistics.mean(live):.1f}" if live else "",
        f"{statistics.median(success):.3f}",
        f"{min(success):.3f} to {max(success):.3f}",
        f"{statistics.median(drawn):.2f}" if drawn else "",
        f"{rate:,.0f}",
    ]


MARKERS = {"room": "s", "room, late": "D", "longest span": "v", "constant": "x"}
"""Marks of a curve by what sets the sizes; a dot if it is anything else."""


def draw_curve(axes: Axes, rows: Rows, task: str, memory: str, kind: str, colour: str) -> None:
    """A memory's curve: the median of the seeds at every size, and their range. A memory without
    live memories is a line at the median of each size."""
    points = []
    label = f"{memory}, {kind}" if len(SIZES[memory]) > 1 else memory
    for size, _ in SIZES[memory][kind]:
        if not (row := rows.get((task, f"{memory}-{size}"))):
            continue
        live, success, span = row[3:6]
        if live:
            lowest, highest = map(float, span.split(" to "))
            points.append((float(live), float(success), lowest, highest))
        else:
            dashes = (0, (5, 5)) if memory == "lstm" else (5, (5, 5))  # equal ones take turns
            axes.axhline(float(success), color=colour, linestyle=dashes, label=label)
    if points:
        x, y, low, high = (list(column) for column in zip(*sorted(points), strict=True))
        axes.plot(x, y, MARKERS.get(kind, "o") + "-", color=colour, label=label)
        axes.vlines(x, low, high, color=colour, alpha=0.4)


LIVE_TICKS = (0, 4, 8, 16, 32, 64, 128, 256)
"""Numbers of live memories marked below the panels, which share the axis."""


def write_figure(file: Path, rows: Rows) -> None:
    """A panel for each task that has been run."""
    tasks = [task for task in TASKS if any(key[0] == task for key in rows)]
    n_rows = max(1, -(-len(tasks) // 2))
    figure = Figure(figsize=(9, 1 + 3.2 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, 2, sharex=True, sharey=True, squeeze=False).flatten()
    handles: dict[Any, Any] = {}
    for axes, task in zip(panels, tasks, strict=False):
        for number, (memory, kinds) in enumerate(SIZES.items()):
            for kind in kinds:
                draw_curve(axes, rows, task, memory, kind, f"C{number}")
        axes.set_xscale("symlog", base=2, linthresh=LIVE_TICKS[1])
        axes.set_xticks(LIVE_TICKS, [str(n) for n in LIVE_TICKS])
        axes.set_xlim(-1, LIVE_TICKS[-1])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(-0.05, 1.05)
        axes.set_title(f"{task}: {MEASURES[task]}")
        axes.set_xlabel("live memories per layer")
        lines, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize="small"
    )
    figure.savefig(file, dpi=100)


def write_table(options: Options) -> None:
    """Write table and picture, anew for every run there is under `options.runs`."""
    order = [(task, variant) for task in TASKS for variant in VARIANTS]
    rows = with_earlier(
        options.out,
        (
            table_row(task, variant, runs)
            for task, variant in order
            if (runs := finished(options.runs, f"{task}_{variant}_*"))
        ),
        order,
    )
    text = f"""# Success against live memories

Written by `python benchmarks/memory_size.py`: PPO with the preset of each task, then 1,000 fresh
episodes without exploration (`none` draws its actions). Corridor has lengths U(3,200), Portal 5
rooms. Instruction is the short variant, of which the share delivered is shown, of the instructions
whose character was met, and of Collision that of right answers. Below chance, 0.5 on Corridor, is an agent whose likeliest
action at the junction is to wait. Presets were tuned with expire-span; the others share them.
Success: median of the seeds, and their range. Drawn: the same of the last 100 training episodes, whose
actions are drawn, of the runs that are here. Late: a bound that sets in after half of the training.
In the picture "room" is `max-live`, "longest span" `max-span` and "constant" `coef`, a vertical line
is the range of the seeds, and `lstm` and `gru`, without live memories, are dashed. Live memories: mean per layer over the evaluation,
the present step aside. Steps/s: learning included, one core each; {options.machine}.

| task | memory | seeds | live | success | range | drawn | steps/s |
|---|---|---|---|---|---|---|---|
"""
    picture = options.out.with_suffix(".png")
    write(
        options.out,
        f"{text}{table_lines(rows)}\n![success against live memories]({picture.name})\n",
    )
    write_figure(picture, rows)


def main(options: Options) -> None:
    """Run what is missing, seed by seed, and write the table after each run."""
    check_known("tasks", options.tasks, tuple(TASKS))
    check_known("memories", options.memories, tuple(VARIANTS))
    queue = [
        Run(
            options.runs / f"{task}_{variant}_{seed}",
            ["--env", TASKS[task], *VARIANTS[variant], "--seed", str(seed)],
        )
        for seed in options.seeds
        for task in options.tasks
        for variant in options.memories
    ]
    train_all(queue, options.jobs, lambda: write_table(options))
    print(f"written: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

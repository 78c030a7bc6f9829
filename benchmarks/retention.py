"""Does a solved task stay solved? A million further steps, span_coef auto and constant.

    python benchmarks/retention.py             # all runs, then docs/benchmarks/retention.md and .png

Each run learns Corridor with lengths U(3,--max-length) at a constant learning rate and is evaluated
every --interval steps, taking the likeliest actions and, on other episodes, drawing them as in
training. A run whose file exists is not repeated.
"""

from __future__ import annotations

import csv
import re
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from expire_span.agents import MemoryPPO, make_vec_env
from expire_span.training.evaluation import evaluate_retention
from expire_span.training.presets import FULL_STEPS, PRESETS
from runs import machine, write

ENV_ID = "expire_span.envs:ExpireSpan/Corridor-v0"
SOLVED = 0.99
FIELDS = ("steps", "success", "cue_recall", "live", "success_drawn")


@dataclass(frozen=True)
class Options:
    """What to run."""

    span_coefs: tuple[str, ...] = ("auto", "1e-3", "1e-2")
    """Values of span_coef."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds."""
    max_length: int = 30
    """Cells of the longest corridor. In 30 hardly anything can expire; 200 are the preset's own."""
    steps: int = 1_150_000
    """Environment steps of a run: to solve the task, and a million more."""
    interval: int = 50_000
    """Steps between two evaluations."""
    episodes: int = 200
    """Episodes of an evaluation."""
    initial_span: float = (
        PRESETS["corridor"].algorithms["ppo"].memories["expire-span"]["initial_span"]
    )
    """Spans before learning, as a fraction of max_span. The paper's penalty reaches those alone that
    end in an episode: 0.04 are 20 steps."""
    runs: Path = field(default=Path("runs/benchmark_retention"))
    """Folder of the runs' figures."""
    out: Path = field(default=Path("docs/benchmarks/retention.md"))
    """File the table is written to; the picture lies beside it."""


def stem(options: Options) -> str:
    """What the names of files begin with: runs of other options are others."""
    names = (options.max_length, options.steps, options.interval, options.episodes)
    return "_".join(map(str, (*names, options.initial_span)))


def train(span_coef: str, seed: int, options: Options) -> None:
    """One run, unless its file exists: a row of figures per evaluation."""
    file = options.runs / f"{stem(options)}_{span_coef}_{seed}.csv"
    if file.exists():
        return
    lengths = {"max_length": options.max_length}
    preset = PRESETS["corridor"].algorithms["ppo"]
    hyper_parameters: dict[str, Any] = dict(preset.hyper_parameters)
    del hyper_parameters["learning_rate_schedule"]  # constant: a rate of 0 would prove nothing
    hyper_parameters = {k: v for k, v in hyper_parameters.items() if k not in FULL_STEPS}
    model = MemoryPPO(
        "MlpPolicy",
        make_vec_env(ENV_ID, preset.run["n_envs"], seed, lengths),
        memory_kwargs={**preset.memories["expire-span"], "initial_span": options.initial_span},
        span_coef="auto" if span_coef == "auto" else float(span_coef),
        seed=seed,
        **hyper_parameters,
    )
    rows: list[tuple[int, float, float | None, float, float]] = []
    while model.num_timesteps < options.steps:
        model.learn(options.interval, reset_num_timesteps=not rows)
        likeliest, drawn = (
            evaluate_retention(
                model,
                make_vec_env(ENV_ID, 100, first_seed + seed, lengths),
                options.episodes,
                deterministic=deterministic,
            ).figures()
            for first_seed, deterministic in ((10_000, True), (20_000, False))
        )
        live = round(statistics.mean(likeliest["live_memory_mean"]), 2)
        success, recall = likeliest["success_rate"], likeliest["cue_recall"]
        rows.append((model.num_timesteps, success, recall, live, drawn["success_rate"]))
        print(span_coef, seed, *rows[-1], flush=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as handle:
        csv.writer(handle).writerows([FIELDS, *rows])


Rows = list[dict[str, float]]
"""The evaluations of a run."""


def read(file: Path) -> Rows:
    """What `train` wrote."""
    with file.open(newline="") as handle:
        return [{k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(handle)]


def table_row(span_coef: str, seed: str, evaluations: Rows) -> str:
    """A run in one line: its evaluations from the first that is solved, all if none is."""
    first = next((i for i, row in enumerate(evaluations) if row["success"] >= SOLVED), None)
    rows = evaluations[first or 0 :]
    success, live = [row["success"] for row in rows], [row["live"] for row in rows]
    solved, since = "never", ""
    if first is not None:
        solved = f"{rows[0]['steps']:,.0f}"
        since = f"{rows[-1]['steps'] - rows[0]['steps']:,.0f}"
    cells = [span_coef, seed, solved, since, f"{min(success):.3f}", f"{success[-1]:.3f}"]
    cells += [f"{min(row['success_drawn'] for row in rows):.3f}"]
    cells += [f"{min(row['cue_recall'] for row in rows):.3f}"]
    cells += [f"{min(live):.1f}", f"{max(live):.1f}", f"{live[-1]:.1f}"]
    return f"| {' | '.join(cells)} |"


def command(options: Options) -> str:
    """The command line that gives these runs, whatever the seeds."""
    words = ["python benchmarks/retention.py"]
    for name in ("max_length", "steps", "interval", "episodes", "initial_span", "out"):
        if (value := getattr(options, name)) != getattr(Options, name):
            words.append(f"--{name.replace('_', '-')} {value}")
    return " ".join(words)


def write_table(options: Options) -> None:
    """Write table and picture of the runs there are with these options, whatever their seeds."""
    lines, figure = [], Figure(figsize=(9, 6), layout="constrained")
    success_axes, live_axes = figure.subplots(2, 1, sharex=True)
    for number, span_coef in enumerate(options.span_coefs):
        files = sorted(options.runs.glob(f"{stem(options)}_{span_coef}_*.csv"))
        for file in files:
            rows = read(file)
            lines.append(table_row(span_coef, file.stem.rpartition("_")[2], rows))
            steps = [row["steps"] for row in rows]
            label = f"span_coef = {span_coef}" if file is files[0] else None
            for axes, field_name in ((success_axes, "success"), (live_axes, "live")):
                values = [row[field_name] for row in rows]
                axes.plot(steps, values, color=f"C{number}", label=label, alpha=0.7)
    success_axes.set_ylabel("success rate")
    success_axes.set_ylim(0, 1.05)
    live_axes.set_ylim(bottom=0)
    live_axes.set_ylabel("live memories per layer")
    live_axes.set_xlabel("environment steps")
    live_axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    success_axes.legend()
    text = f"""# Retention after the task is solved

Written by `{command(options)}`:
Corridor, lengths U(3,{options.max_length}), the preset's hyper-parameters at a constant learning rate, the library's kl_coef and solved_by, evaluated every {options.interval:,} steps on
{options.episodes} episodes taking the likeliest actions and on {options.episodes} others drawing them, as in training.
Figures are over all evaluations from the first with success >= {SOLVED}, or over all of a run that never has it;
all but "drawn" are of the likeliest actions.
Live memories: mean per layer, the present step aside. One core a run; {machine()}.

| span_coef | seed | solved | steps since | lowest success | last | lowest, drawn | lowest recall | live, min | max | last |
|---|---|---|---|---|---|---|---|---|---|---|
"""
    write(options.out, text + "\n".join(lines) + f"\n\n![curves]({options.out.stem}.png)\n")
    figure.savefig(options.out.with_suffix(".png"), dpi=100)


def main(options: Options) -> None:
    """Run what is missing, seed by seed; table and picture are written after each run."""
    for span_coef in options.span_coefs:
        if span_coef != "auto" and not re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", span_coef):
            sys.exit(f"span_coef = {span_coef!r} is neither 'auto' nor a number, as 1e-3")
    torch.set_num_threads(1)
    for seed in options.seeds:
        for span_coef in options.span_coefs:
            train(span_coef, seed, options)
            write_table(options)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""Training runs for the benchmarks: each `train_rl.py` once, in a folder of its own.

A run whose folder holds an evaluation.json is not repeated, and one that was cut off goes on from
its last save, so a benchmark can be stopped and gone on with. Its table shows every run there is.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from expire_span.training.curriculum import STAGE
from expire_span.training.folder_lock import FolderLock
from expire_span.training.metrics_csv import LENGTH, STEPS, read_metrics
from expire_span.training.run_directory import git_commit
from expire_span.training.whole_file import write_whole

SUCCESS, RETURN = "rollout/success_rate", "rollout/ep_rew_mean"
"""Columns of a metrics.csv."""


class Run(NamedTuple):
    """A training run: where it goes, and its options."""

    folder: Path
    words: Sequence[str]


def train(run: Run) -> None:
    """Do a run, or what is left of it. Raises CalledProcessError if it fails."""
    if (run.folder / "evaluation.json").exists():
        return
    if (run.folder / "model.zip").exists():
        place = "--resume"  # refused if the run was begun with other options
    else:
        place = "--run-dir"
        _remove_cut_off(run.folder)
    command = [sys.executable, "train_rl.py", *run.words, place, str(run.folder)]
    command += ["--wandb", "disabled", "--no-progress"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _remove_cut_off(folder: Path) -> None:
    """Remove what is left of a run that was cut off before its first save, which `train_rl.py`
    refuses. Exits with a message if it is not cut off at all."""
    if not folder.exists():
        return
    lock = FolderLock(folder)
    if not lock.take():
        sys.exit(f"{folder} is being trained by another process; wait for it, or give other --runs")
    shutil.rmtree(folder)
    lock.release()


def train_all(queue: Sequence[Run], jobs: int, after_each: Callable[[], None]) -> None:
    """Do the runs in order, `jobs` at a time, one core each; `after_each` one at a time."""
    lock = threading.Lock()

    def one(run: Run) -> None:
        train(run)
        with lock:
            after_each()
        print(f"done: {run.folder.name}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, queue))


def finished(runs: Path, pattern: str) -> list[Path]:
    """Folders under `runs` of the runs there are whose names fit, in order."""
    return sorted(file.parent for file in runs.glob(f"{pattern}/evaluation.json"))


def evaluation(folder: Path) -> dict[str, Any]:
    """What a finished run was evaluated to."""
    return json.loads((folder / "evaluation.json").read_text())  # type: ignore[no-any-return]


def last_logged(key: str, folder: Path) -> float | None:
    """The last value of `key`, a mean of the recent training episodes; None if there is none."""
    rows: list[Any] = read_metrics(folder / "metrics.csv")
    return next((float(row[key]) for row in reversed(rows) if key in row), None)


Cells = list[str]
"""A row of a table. Its first two cells say what was run, the third with how many seeds."""

Rows = dict[tuple[str, str], Cells]
"""A table, by the first two cells."""


def read_table(file: Path) -> Rows:
    """The table of a Markdown file, without its head; empty if there is no file."""
    if not file.exists():
        return {}
    lines = [line for line in file.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    return {(row[0], row[1]): row for row in cells}


def with_earlier(file: Path, rows: Iterable[Cells], order: Iterable[tuple[str, str]]) -> Rows:
    """`rows`, and of the table in `file` those that have more seeds or whose runs are not here any
    more; in `order`, which has the first two cells of every row there can be."""
    table = read_table(file)
    for row in rows:
        earlier = table.get((row[0], row[1]))
        if earlier is None or int(row[2]) >= int(earlier[2]):
            table[row[0], row[1]] = row
    return {key: table[key] for key in order if key in table}


def table_lines(rows: Rows) -> str:
    """The lines of a Markdown table below its head."""
    return "".join(f"| {' | '.join(row)} |\n" for row in rows.values())


def steps_to(level: float, key: str, folder: Path) -> float | None:
    """Environment steps after which `key`, a mean of 100 training episodes, reached `level`.

    Of a curriculum the last stage alone counts. Before a hundred episodes of the longest mean
    length nothing does: the first to end are the shortest, and few.
    """
    rows: list[Any] = read_metrics(folder / "metrics.csv")
    stages = [row.get(STAGE) for row in rows]  # none in the line that closes a training
    last = next((stage for stage in reversed(stages) if stage not in (None, "")), None)
    first = stages.index(last) if rows else 0
    began = float(rows[first - 1][STEPS]) if first else 0.0
    played = [row for row in rows[first:] if row.get(key) not in (None, "")]
    longest = max((float(row[LENGTH]) for row in played), default=0.0)
    for row in played:
        if float(row[key]) >= level and (steps := float(row[STEPS])) - began >= 100 * longest:
            return steps
    return None


def machine() -> str:
    """What the runs ran on, for the text beside a table."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def command() -> str:
    """The command line of this program, and the commit, for the text beside a table that is
    measured in one go."""
    return f"`{shlex.join(['python', *sys.argv])}` ({git_commit() or 'no commit'})"


def write(file: Path, text: str) -> None:
    """Write a table, whole or not at all: rows of runs that are gone are in it alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, text.encode())


def check_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Exit with a message unless all `names` are `known`."""
    if unknown := set(names) - set(known):
        sys.exit(f"unknown {what} {sorted(unknown)}; known: {', '.join(known)}")

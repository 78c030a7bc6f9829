"""The table printed at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .assignments import assignments
from .run_directory import RunDirectory


def print_table(figures: dict[str, Any], directory: RunDirectory, model: Path) -> None:
    """Print the figures of evaluation.json that matter most, and where files and model are."""
    rows = {
        "episodes evaluated": f"{figures['episodes']}",
        "evaluated with": ", ".join(assignments(figures["eval_env_kwargs"])) or None,
        "success rate": _percent(figures["success_rate"]),
        "mean return": f"{figures['mean_reward']:.3f} ± {figures['std_reward']:.3f}",
        "mean episode length": f"{figures['mean_length']:.1f}",
        **{name.replace("_", " "): f"{tally:.3f}" for name, tally in figures["tallies"].items()},
        "cue recall": _percent(figures["cue_recall"]),
        "live memories per layer": _per_layer(figures["live_memory_mean"]),
        "most live memories": _number(figures["live_memory_max"]),
        "live memories that are cues": _percent(figures["precision"]),
        "environment steps trained": f"{figures['env_steps']}",
        "steps per second": _number(figures["env_steps_per_second"]),
    }
    console = Console(markup=False, emoji=False, highlight=False)  # names may have brackets
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, text in rows.items():
        if text is not None:
            table.add_row(_encodable(name, console), _encodable(text, console))
    title = f"{figures['env']}, {figures['memory']}, {figures['algo']}, seed {figures['seed']}"
    console.print(_encodable(title, console), soft_wrap=True)
    console.print(table)
    place = f"files: {directory.path}   agent: {model}"
    console.print(_encodable(place, console), soft_wrap=True)


def _encodable(text: str, console: Console) -> str:
    """The text with question marks for what an ASCII terminal has no letters for."""
    return text.encode(console.encoding, "replace").decode(console.encoding)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"


def _number(number: float | None) -> str | None:
    return None if number is None else f"{number:.0f}"


def _per_layer(means: list[float] | None) -> str | None:
    return None if means is None else ", ".join(f"{mean:.1f}" for mean in means)

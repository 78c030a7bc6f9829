"""Progress on stderr: a tqdm bar on a terminal, a line for every tenth elsewhere."""

from __future__ import annotations

import contextlib
import sys

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm


class Progress:
    """Counts towards `total`: a bar if stderr is a terminal, otherwise ten lines in all."""

    def __init__(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._tenth = done * 10 // total
        self._on_terminal = sys.stderr is not None and sys.stderr.isatty()  # None: closed
        self._bar = tqdm(
            desc=what,
            total=total,
            initial=done,
            unit=f" {unit}",
            unit_scale=total >= 10_000,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=not self._on_terminal,
        )

    def advance(self, count: int) -> None:
        """Take in `count` more."""
        self.done += count
        self._bar.update(min(count, max(0, self.total - self._bar.n)))

    def say(self, text: str = "") -> None:
        """Show `text` beside the bar; elsewhere print a line if another tenth has passed."""
        if self._on_terminal:
            self._bar.set_postfix_str(text, refresh=False)
        elif sys.stderr is not None and (
            (tenth := min(10, self.done * 10 // self.total)) > self._tenth
        ):
            self._tenth = tenth
            line = f"{self.what} {10 * tenth:3d} %, {self.done} {self.unit}"
            with contextlib.suppress(OSError):  # a reader that ended, a full disk
                print(f"{line}, {text}" if text else line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


class ShowProgress(BaseCallback):
    """Shows how far training is, recent success (or return), and live memories per layer."""

    def __init__(self, total_timesteps: int) -> None:
        super().__init__()
        self.total_timesteps = total_timesteps
        self.progress: Progress | None = None

    def _on_training_start(self) -> None:
        if self.progress is None:  # otherwise another stage of the curriculum begins
            self.progress = Progress("training", self.total_timesteps, "steps", self.num_timesteps)

    def _on_step(self) -> bool:
        if self.progress is not None:
            self.progress.advance(self.training_env.num_envs)
        return True

    def _on_rollout_end(self) -> None:
        if self.progress is not None:
            self.progress.say(self._figures())

    def close(self) -> None:
        """Leave the progress as it is."""
        if self.progress is not None:
            self.progress.close()

    def _figures(self) -> str:
        figures = []
        if self.model.ep_success_buffer:
            figures.append(f"success {100 * np.mean(self.model.ep_success_buffer):.1f} %")
        elif self.model.ep_info_buffer:
            mean = np.mean([info["r"] for info in self.model.ep_info_buffer])
            figures.append(f"return {mean:.3g}")
        live = self.logger.name_to_value.get("memory/live_mean")  # of the last update
        if live is not None:
            figures.append(f"live memories {live:.1f}")
        return ", ".join(figures)

"""Easier forms of an environment first: the stages of a run, and when each ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from .config import AnyConfig
from .metrics_csv import STEPS, Row

STAGE = "curriculum/stage"
"""Logger key: the stage of the curriculum, from 0."""

EPISODES = 300
"""Episodes of a stage over which success is taken."""


def stages_of(config: AnyConfig) -> list[dict[str, Any]]:
    """The environment's arguments in each stage; the last are those of the environment itself."""
    return [config.env_kwargs | stage for stage in config.curriculum] + [config.env_kwargs]


def stage_reached(rows: Sequence[Row]) -> int:
    """The stage of the last line of a run's metrics; 0 for a new run."""
    return int(next((row[STAGE] for row in reversed(rows) if STAGE in row), 0))


def stage_began(rows: Sequence[Row], stage: int) -> int:
    """The step at which `stage`, the last of a run's metrics, began."""
    return int(max((row[STEPS] for row in rows if row.get(STAGE, stage) < stage), default=0))


class StageEnd(BaseCallback):
    """Logs the stage, which began at step `began`, and ends learning once it is mastered or its
    steps are used up.

    Attribute: `reached`, whether the stage is over. The last stage never is.
    """

    def __init__(self, stage: int, began: int, config: AnyConfig) -> None:
        super().__init__()
        self.stage = stage
        self.began = began
        self.is_last = stage == len(config.curriculum)
        self.success = config.curriculum_success
        self.steps = None if self.is_last else config.steps_of_stages()[stage]
        self.successes: deque[bool] = deque(maxlen=EPISODES)
        self.reached = False

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "is_success" in info:
                self.successes.append(bool(info["is_success"]))
        return not self.reached

    def _on_rollout_end(self) -> None:
        self.logger.record(STAGE, self.stage)
        if self.is_last:
            return
        mastered = len(self.successes) == EPISODES and (
            sum(self.successes) >= self.success * EPISODES
        )
        used_up = self.steps is not None and self.num_timesteps - self.began >= self.steps
        self.reached = mastered or used_up

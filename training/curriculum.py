"""Easier forms of an environment first: the stages of a run, and when each ends."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from expire_span.agents.episode_returns import episode_success

from .arguments import UserError
from .config import AnyConfig

STAGE = "curriculum/stage"
"""Logger key: the stage of the curriculum, from 0."""

EPISODES = 300
"""Episodes of a stage over which success is taken."""

SILENT_EPISODES = 100
"""Episodes that say nothing of success after which none is waited for any more."""


def stages_of(config: AnyConfig) -> list[dict[str, Any]]:
    """The environment's arguments in each stage; the last are those of the environment itself."""
    return [config.env_kwargs | stage for stage in config.curriculum] + [config.env_kwargs]


def evaluation_of(config: AnyConfig) -> dict[str, Any]:
    """The environment's arguments in evaluation."""
    return config.env_kwargs | config.eval_env_kwargs


@dataclass
class Stage:
    """The stage that a run is in. Its agent carries it, so that a resumed run goes on in it."""

    number: int = 0
    began: int = 0
    """Environment steps the run had taken when it began."""
    successes: deque[bool] = field(default_factory=lambda: deque(maxlen=EPISODES))
    """Which of its last episodes succeeded."""


class StageEnd(BaseCallback):
    """Logs the stage and ends learning once it is mastered or its steps are used up.

    Attribute: `reached`, whether the stage is over. The last stage never is.

    Raises UserError, from learning, if only success would end a stage and episodes say nothing of
    it.
    """

    def __init__(self, stage: Stage, config: AnyConfig) -> None:
        super().__init__()
        self.stage = stage
        self.is_last = stage.number == len(config.curriculum)
        self.success = config.curriculum_success
        self.steps = None if self.is_last else config.steps_of_stages()[stage.number]
        self.reached = False
        self._env, self._silent = config.env, 0

    def _on_step(self) -> bool:
        for info, done in zip(self.locals["infos"], self.locals["dones"], strict=True):
            if not done:
                continue
            if (success := episode_success(info)) is not None:
                self.stage.successes.append(success)
            elif not (self.is_last or self.steps or self.stage.successes):
                self._count_silent()
        return not self.reached

    def _count_silent(self) -> None:
        self._silent += 1
        if self._silent == SILENT_EPISODES:
            raise UserError(
                f"stage {self.stage.number} of the curriculum ends by success, and none of "
                f"{SILENT_EPISODES} episodes of {self._env} said whether it succeeded. Set "
                'info["is_success"] at the end of an episode, or begin anew with --curriculum-steps'
            )

    def _on_rollout_end(self) -> None:
        self.logger.record(STAGE, self.stage.number)
        if self.is_last:
            return
        successes = self.stage.successes
        mastered = len(successes) == EPISODES and sum(successes) >= self.success * EPISODES
        taken = self.num_timesteps - self.stage.began
        used_up = self.steps is not None and taken >= self.steps
        self.reached = mastered or used_up

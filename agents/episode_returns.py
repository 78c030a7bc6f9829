"""Returns of episodes, which set pressure on memories and size of steps, and are evaluated."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, is_vecenv_wrapped

RECENT_EPISODES = 100
"""Episodes that are remembered, as many as SB3 takes its means of."""

MIN_EPISODES = 20
"""Episodes before a mean return is believed."""

FORGET = 0.002
"""Share of its distance to the recent return by which the best return falls at an update."""


def best_return(best: float, recent: float) -> float:
    """The best of the recent mean returns; it falls slowly, so a lucky stretch is forgotten."""
    return max(recent, best + FORGET * min(0.0, recent - best))


def is_monitored(env: VecEnv) -> bool:
    """Whether all environments have a Monitor of SB3's, which says what their episodes earned."""
    if is_vecenv_wrapped(env, VecMonitor):
        return True
    try:
        return bool(np.all(env.env_is_wrapped(Monitor)))  # a VecEnv may give one bool for all
    except (AttributeError, NotImplementedError):
        return False


def episode_success(info: dict[str, Any]) -> bool | None:
    """Whether an episode succeeded, by `info["is_success"]` of its last step; None if that says
    nothing. Raises ValueError for what is neither true nor false."""
    success = info.get("is_success")
    if success is None:
        return None
    if np.size(success) != 1 or not isinstance(np.asarray(success).item(), bool | int | float):
        raise ValueError(
            f'info["is_success"] = {success!r} is neither true nor false. An environment that uses '
            "the entry for something else needs a wrapper that renames it"
        )
    return bool(np.asarray(success).item())


class EpisodeReturns:
    """What the recent episodes earned: as a Monitor says, or else the sum of the rewards; before
    any normalisation.

    `monitored`: whether all environments have a Monitor. What ends without its word is then no
    episode, as in SB3's `evaluate_policy`, but a life lost in a game that goes on; unless it is cut
    off by a time limit, which then lies outside of the Monitor. `recent` are the returns to begin
    with, of the same environments at another time.
    """

    def __init__(self, n_envs: int, monitored: bool, recent: Iterable[float] = ()) -> None:
        self.sum_B = np.zeros(n_envs)
        self.monitored = monitored
        self.recent = deque(recent, RECENT_EPISODES)

    def add(
        self,
        rewards_B: NDArray[Any],
        dones_B: NDArray[np.bool_],
        infos: Sequence[dict[str, Any]],
    ) -> dict[int, float]:
        """Take in one step of every environment. Returns what the episodes that ended in it earned,
        by environment."""
        self.sum_B += rewards_B
        ended = {
            i: infos[i].get("episode", {}).get("r", self.sum_B[i].item())
            for i in np.flatnonzero(dones_B).tolist()
            if not self.monitored or "episode" in infos[i] or infos[i].get("TimeLimit.truncated")
        }
        self.recent.extend(ended.values())
        self.sum_B[list(ended)] = 0
        return ended

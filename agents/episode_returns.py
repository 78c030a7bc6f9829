"""Returns of episodes, which set pressure on memories and size of steps, and are evaluated."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECENT_EPISODES = 100
"""Episodes that are remembered, as many as SB3 takes its means of."""

MIN_EPISODES = 20
"""Episodes before a mean return is believed."""


class EpisodeReturns:
    """What the recent episodes earned: as a Monitor says, before any normalisation, or else the sum
    of the rewards the agent got.

    `recent` are the returns to begin with, of the same environments at another time.
    """

    def __init__(self, n_envs: int, recent: Iterable[float] = ()) -> None:
        self.sum_B = np.zeros(n_envs)
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
        }
        self.recent.extend(ended.values())
        self.sum_B[dones_B] = 0
        return ended

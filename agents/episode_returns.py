"""Returns of the recent episodes, by which pressure on memories and size of steps are set."""

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
        rewards_B: NDArray[np.float32],
        dones_B: NDArray[np.bool_],
        infos: Sequence[dict[str, Any]],
    ) -> None:
        """Take in one step of every environment."""
        self.sum_B += rewards_B
        for i in np.flatnonzero(dones_B).tolist():
            self.recent.append(infos[i].get("episode", {}).get("r", self.sum_B[i].item()))
        self.sum_B[dones_B] = 0

"""Scripted policies that earn the best return of each environment from its observations alone.

They prove that a task can be solved by memory, and are the upper line in plots. An oracle is
called with what a trained policy would get: a batch of observations and the episode starts.

B environments, O observation features.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from numpy.typing import NDArray

from .corridor import COLOURS

LEFT, RIGHT, FORWARD = range(3)


class CorridorOracle:
    """Walks the corridor, remembers the colour of the ball and turns to the goal of that colour.

    With `remember=False` it chooses a goal at random and earns `RETURN_WITHOUT_MEMORY` on average:
    the same walk without the memory. `seed` is for these choices.

    Shapes: obs_BO uint8, flattened views of any size; starts_B bool, the first step of an episode;
    actions_B int64.
    """

    def __init__(self, remember: bool = True, seed: int | None = None) -> None:
        self.remember = remember
        self.np_random = np.random.default_rng(seed)
        self._colour_B: NDArray[np.int64] = np.empty(0, np.int64)

    def act(self, obs_BO: NDArray[np.uint8], starts_B: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Choose the next actions.

        Raises: ValueError if the first call for a batch does not start an episode everywhere.
        """
        size = isqrt(obs_BO.shape[1] // 3)
        view_BVVF = obs_BO.reshape(-1, size, size, 3)
        self._memorise(view_BVVF.reshape(len(obs_BO), -1, 3), starts_B)

        # the agent is in the middle of the last row; the first axis of a view runs left to right
        middle, last = size // 2, size - 1
        left_BF = view_BVVF[:, middle - 1, last]
        right_BF = view_BVVF[:, middle + 1, last]

        goal = OBJECT_TO_IDX["goal"]
        at_junction_B = (left_BF[:, 0] == goal) & (right_BF[:, 0] == goal)
        turn_B = np.where(left_BF[:, 1] == self._colour_B, LEFT, RIGHT)
        # after the turn the goals are ahead and behind, so the next action is forward
        return np.where(at_junction_B, turn_B, FORWARD)

    def _memorise(self, cells_BCF: NDArray[np.uint8], starts_B: NDArray[np.bool_]) -> None:
        """Note the ball's colour at the start of an episode, where it is in view, or a guess."""
        if len(self._colour_B) != len(starts_B):
            if not starts_B.all():
                raise ValueError(
                    f"starts_B marks {int(starts_B.sum())} of {len(starts_B)} environments in the "
                    "first call for this batch; reset them all and pass all True"
                )
            self._colour_B = np.zeros(len(starts_B), np.int64)
        if self.remember:
            ball_BC = cells_BCF[..., 0] == OBJECT_TO_IDX["ball"]
            seen_B = np.where(ball_BC, cells_BCF[..., 1], 0).max(1)
        else:
            guess_B = self.np_random.integers(len(COLOURS), size=len(starts_B))
            seen_B = np.array([COLOR_TO_IDX[colour] for colour in COLOURS])[guess_B]
        self._colour_B = np.where(starts_B, seen_B, self._colour_B)

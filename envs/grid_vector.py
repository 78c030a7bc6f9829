"""Grid worlds for many environments at once, in array arithmetic: what all of them share.

Every environment owns one row of a padded map of cell codes. A position is an index into that row,
a heading adds a fixed stride to it, and a view is the position plus fixed offsets per heading. So
a step is a handful of NumPy calls, and only environments that reset run Python of their own.

B environments, M cells of a map, C cells of a view.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from minigrid.core.constants import COLOR_TO_IDX, DIR_TO_VEC, OBJECT_TO_IDX
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray

from .native_vector import Actions, NativeVectorEnv, Outcome

WALL, EMPTY = 0, 1
"""The first two cell codes of every map."""

WALL_AND_EMPTY = [
    (OBJECT_TO_IDX["wall"], COLOR_TO_IDX["grey"], 0),
    (OBJECT_TO_IDX["empty"], 0, 0),
]
"""MiniGrid's (object, colour, state) of the first two cell codes."""

TURN = np.array([-1, 1, 0])
"""What each action adds to the heading."""

FORWARD = 2


class GridVectorEnv(NativeVectorEnv):
    """`num_envs` grid worlds in one process. See `NativeVectorEnv` for what is returned and raised.

    A subclass lays out an episode's map and says what an action does, what an observation is marked
    as, and how it is drawn. Whatever pays is a success; episodes end when the task says so or, as
    a loss, at their step limit.

    Shapes: observations (B, view_size * view_size * 3) uint8; actions (B,).
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": MiniGridEnv.metadata["render_fps"],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    actions_are = "0 (turn left), 1 (turn right), 2 (move forward)"

    def __init__(
        self,
        num_envs: int,
        single_observation_space: spaces.Box,
        view_size: int,
        n_columns: int,
        n_rows: int,
        encoding: NDArray[np.uint8],
        render_mode: str | None,
    ) -> None:
        """`n_columns` and `n_rows`: of the largest map; `encoding`: MiniGrid's triple per code."""
        super().__init__(num_envs, single_observation_space, spaces.Discrete(3), render_mode)
        self.view_size = view_size
        self._encoding = encoding
        self._lay_tables(n_rows)
        self._map_BM = np.zeros((num_envs, (n_columns + 2 * self._margin) * self._column), np.uint8)
        self._code_BC = np.zeros((num_envs, view_size * view_size), np.uint8)
        self._position_B = np.zeros(num_envs, np.int64)
        self._heading_B = np.zeros(num_envs, np.int64)
        self._steps_B = np.zeros(num_envs, np.int64)
        self._limit_B = np.zeros(num_envs, np.int64)

    # ------------------------------------------------------------------------ what a task defines

    @abstractmethod
    def _lay_out(self, i: int, generator: np.random.Generator) -> None:
        """Draw an episode for environment `i`: write map, position, heading and step limit."""

    @abstractmethod
    def _move(self, action_B: Actions) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Take the actions. Returns: where a reward of 1 is earned, where the episode ends."""

    # -------------------------------------------------------------------- what the base asks for

    def _begin_episode(self, i: int, generator: np.random.Generator) -> None:
        self._lay_out(i, generator)
        self._steps_B[i] = 0

    def _play(self, action_B: Actions) -> Outcome:
        success_B, ended_B = self._move(action_B)
        self._steps_B += 1
        ended_B = ended_B | (self._steps_B >= self._limit_B)
        return Outcome(success_B.astype(np.float64), success_B, ended_B)

    def _observe(self, envs: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Views of the environments `envs`, flattened; their cell codes are left in `_code_BC`."""
        cell_BC = self._position_B[envs, None] + self._offset_by_heading_C[self._heading_B[envs]]
        code_BC = self._map_BM[envs[:, None], cell_BC]
        # MiniGrid shows the agent's own cell as empty, whatever lies there
        code_BC[:, self._own_cell] = EMPTY
        self._code_BC[envs] = code_BC
        view_BO: NDArray[np.uint8] = self._encoding[code_BC].reshape(len(envs), -1)
        return view_BO

    # ---------------------------------------------------------------------- maps, positions, views

    def _lay_tables(self, n_rows: int) -> None:
        """Work out what turns cells, headings and view cells into indices of a map's row."""
        size = self.view_size
        self._margin = size - 1  # a view reaches this far beyond the agent: no index needs a check
        self._column = n_rows + 2 * self._margin  # indices from a cell to its eastern neighbour
        stride = np.array([self._column, 1])
        self._stride_by_heading = np.array([vector @ stride for vector in DIR_TO_VEC])

        right_by_heading = np.roll(self._stride_by_heading, -1)
        # in C order of a view: its first axis runs left to right, its second from far to near
        to_right_C = np.repeat(np.arange(size), size) - size // 2
        ahead_C = size - 1 - np.tile(np.arange(size), size)
        self._offset_by_heading_C = (
            right_by_heading[:, None] * to_right_C + self._stride_by_heading[:, None] * ahead_C
        )
        self._own_cell = int(np.flatnonzero((to_right_C == 0) & (ahead_C == 0))[0])

    def _index(self, column: Any, row: Any) -> Any:
        """Index of a cell in a map's row; of many cells for arrays."""
        return (column + self._margin) * self._column + row + self._margin

    def _cell(self, index: int) -> tuple[int, int]:
        """Column and row of an index."""
        column, row = divmod(index, self._column)
        return column - self._margin, row - self._margin

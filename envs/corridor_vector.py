"""Corridor for many environments at once: the same game as `CorridorEnv`, in array arithmetic."""

from __future__ import annotations

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, TILE_PIXELS
from numpy.typing import NDArray

from .bounds import check_tile_size
from .corridor import (
    COLOURS,
    CUE_CELL,
    EAST,
    HEIGHT,
    MIN_LENGTH,
    START_CELL,
    WALKWAY,
    CorridorEnv,
    Episode,
    check_arguments,
    draw_episode,
    step_limit,
)
from .grid_vector import EMPTY, FORWARD, TURN, WALL, WALL_AND_EMPTY, GridVectorEnv
from .views import view_space

# cell codes; the code of a ball or goal is its base plus the colour's place in COLOURS
BALL, GOAL = 2, 4

ENCODING = np.array(
    [
        *WALL_AND_EMPTY,
        *[(OBJECT_TO_IDX["ball"], COLOR_TO_IDX[colour], 0) for colour in COLOURS],
        *[(OBJECT_TO_IDX["goal"], COLOR_TO_IDX[colour], 0) for colour in COLOURS],
    ],
    np.uint8,
)
"""MiniGrid's (object, colour, state) of every cell code."""


class CorridorVectorEnv(GridVectorEnv):
    """`num_envs` corridors: task and arguments as in `CorridorEnv`, the rest in `GridVectorEnv`."""

    def __init__(
        self,
        num_envs: int = 1,
        min_length: int = MIN_LENGTH,
        max_length: int = 200,
        view_size: int = 3,
        shuffle_goals: bool = False,
        render_mode: str | None = None,
        tile_size: int = TILE_PIXELS,
    ) -> None:
        check_arguments(min_length, max_length, view_size)
        check_tile_size(tile_size)
        self.min_length = min_length
        self.max_length = max_length
        self.shuffle_goals = shuffle_goals
        self.tile_size = tile_size
        super().__init__(
            num_envs,
            view_space(view_size),
            view_size,
            n_columns=max_length + 2,
            n_rows=HEIGHT,
            encoding=ENCODING,
            render_mode=render_mode,
        )
        self._episodes = [Episode(min_length, 0, 0)] * num_envs
        self._junction_B = np.zeros(num_envs, np.int64)
        self._paying_goal_B = np.zeros(num_envs, np.int64)
        self._painter: CorridorEnv | None = None

    def _lay_out(self, i: int, generator: np.random.Generator) -> None:
        episode = draw_episode(generator, self.min_length, self.max_length, self.shuffle_goals)
        length = episode.length

        cells_M = self._map_BM[i]
        cells_M[:] = WALL
        first, junction = self._index(*START_CELL), self._index(length, WALKWAY)
        cells_M[first : junction + 1 : self._column] = EMPTY
        cells_M[self._index(*CUE_CELL)] = BALL + episode.cue
        cells_M[self._index(length, WALKWAY - 1)] = GOAL + episode.upper_goal
        cells_M[self._index(length, WALKWAY + 1)] = GOAL + 1 - episode.upper_goal

        self._episodes[i] = episode
        self._position_B[i] = first
        self._heading_B[i] = EAST
        self._junction_B[i] = junction
        self._paying_goal_B[i] = GOAL + episode.cue
        self._limit_B[i] = step_limit(length)

    def _move(self, action_B: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        ahead_B = self._position_B + self._stride_by_heading[self._heading_B]
        code_B = self._map_BM[self._envs_B, ahead_B]
        moves_B = (action_B == FORWARD) & ((code_B == EMPTY) | (code_B >= GOAL))

        turned_B = (self._heading_B + TURN[action_B]) % 4
        beside_B = self._map_BM[self._envs_B, self._position_B + self._stride_by_heading[turned_B]]
        self._heading_B = np.where(beside_B >= GOAL, turned_B, self._heading_B)
        self._position_B = np.where(moves_B, ahead_B, self._position_B)
        reached_B = moves_B & (code_B >= GOAL)
        return reached_B & (code_B == self._paying_goal_B), reached_B

    def _marks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        sees_cue_B = ((self._code_BC == BALL) | (self._code_BC == BALL + 1)).any(1)
        at_junction_B = self._position_B == self._junction_B
        return np.where(sees_cue_B, 0, -1), np.where(at_junction_B, 0, -1)

    def _paint(self, i: int) -> NDArray[np.uint8]:
        if self._painter is None:
            self._painter = CorridorEnv(
                self.min_length,
                self.max_length,
                self.view_size,
                render_mode="rgb_array",
                tile_size=self.tile_size,
            )
        self._painter.lay_out(self._episodes[i])
        self._painter.agent_pos = self._cell(int(self._position_B[i]))
        self._painter.agent_dir = int(self._heading_B[i])
        frame: NDArray[np.uint8] = self._painter.render()  # type: ignore[no-untyped-call]
        return frame

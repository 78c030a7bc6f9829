"""Portal for many environments at once: the same game as `PortalEnv`, in array arithmetic.

B environments, R rooms and the goal, P passages and the start.
"""

from __future__ import annotations

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX, TILE_PIXELS
from numpy.typing import NDArray

from .bounds import check_tile_size
from .grid_vector import EMPTY, FORWARD, TURN, WALL, WALL_AND_EMPTY, GridVectorEnv
from .portal import (
    COLOURS,
    LOWER,
    UPPER,
    Episode,
    PortalEnv,
    check_arguments,
    draw_episode,
    max_passages,
    step_limit,
)
from .views import view_space

# cell codes; that of a door is its base plus the colour's place in COLOURS, plus N_COLOURS if it
# is open, twice that if it is locked
N_COLOURS = len(COLOURS)
TILE, GOAL, DOOR = 2, 3, 4

ENCODING = np.array(
    [
        *WALL_AND_EMPTY,
        (OBJECT_TO_IDX["floor"], COLOR_TO_IDX["grey"], 0),
        (OBJECT_TO_IDX["goal"], COLOR_TO_IDX["green"], 0),
        *[
            (OBJECT_TO_IDX["door"], COLOR_TO_IDX[colour], STATE_TO_IDX[state])
            for state in ("closed", "open", "locked")
            for colour in COLOURS
        ],
    ],
    np.uint8,
)
"""MiniGrid's (object, colour, state) of every cell code."""


class PortalVectorEnv(GridVectorEnv):
    """`num_envs` chains of rooms. See `PortalEnv` for task and arguments, `GridVectorEnv` for the
    rest.

    All rooms of a chain lie in one map, so far apart that no view reaches from one to another.
    """

    def __init__(
        self,
        num_envs: int = 1,
        n_rooms: int = 5,
        room_size: int = 3,
        view_size: int = 5,
        render_mode: str | None = None,
        tile_size: int = TILE_PIXELS,
    ) -> None:
        check_arguments(n_rooms, room_size, view_size)
        check_tile_size(tile_size)
        self.n_rooms = n_rooms
        self.room_size = room_size
        self.tile_size = tile_size
        pitch = room_size + view_size
        super().__init__(
            num_envs,
            view_space(view_size),
            view_size,
            n_columns=(n_rooms + 1) * pitch,
            n_rows=room_size + 2,
            encoding=ENCODING,
            render_mode=render_mode,
        )
        middle = 1 + room_size // 2
        self._first_column_R = 1 + pitch * np.arange(n_rooms + 1)
        self._upper_door_R = self._index(self._first_column_R + room_size, middle - 1)
        self._empty_map_M = self._lay_out_rooms()
        self._middle = self._index(0, middle) % self._column  # of the index of any cell
        self._max_passages = max_passages(n_rooms)
        self._episodes: list[Episode | None] = [None] * num_envs
        self._arrivals_BP3 = np.zeros((num_envs, self._max_passages + 1, 3), np.int64)
        self._right_door_BR = np.zeros((num_envs, n_rooms), np.int64)
        self._room_B = np.zeros(num_envs, np.int64)
        self._tried_cell_B = np.zeros(num_envs, np.int64)  # index of the door tried, 0 for none
        self._leads_on_B = np.zeros(num_envs, np.bool_)
        self._passages_B = np.zeros(num_envs, np.int64)
        self._tried_BR = np.zeros((num_envs, n_rooms + 1), np.bool_)
        self._repeated_B = np.zeros(num_envs, np.int64)
        self._repeatable_B = np.zeros(num_envs, np.int64)
        self._reached_B = np.zeros(num_envs, np.int64)
        self._painter: PortalEnv | None = None

    def _lay_out_rooms(self) -> NDArray[np.uint8]:
        """The map that all episodes share: everything but the doors."""
        cells_M = np.full(self._map_BM.shape[1], WALL, np.uint8)
        side = np.arange(self.room_size)
        for room, first_column in enumerate(self._first_column_R):
            code = TILE if room == 0 else GOAL if room == self.n_rooms else EMPTY
            cells_M[self._index(first_column + side[:, None], 1 + side)] = code
        return cells_M

    def _lay_out(self, i: int, generator: np.random.Generator) -> None:
        episode = draw_episode(generator, self.n_rooms, self.room_size)
        cells_M = self._map_BM[i]
        cells_M[:] = self._empty_map_M
        cells_M[self._upper_door_R[:-1]] = DOOR + episode.colours[:, UPPER]
        cells_M[self._upper_door_R[:-1] + 2] = DOOR + episode.colours[:, LOWER]

        self._episodes[i] = episode
        self._arrivals_BP3[i] = episode.arrivals
        self._right_door_BR[i] = episode.right_door
        self._room_B[i] = 0
        self._tried_cell_B[i] = 0
        self._passages_B[i] = 0
        self._tried_BR[i] = False
        self._repeated_B[i] = self._repeatable_B[i] = self._reached_B[i] = 0
        self._limit_B[i] = step_limit(self.n_rooms, self.room_size)
        self._arrive(np.array([i]))

    def _arrive(self, envs: NDArray[np.int64]) -> None:
        column, row, heading = self._arrivals_BP3[envs, self._passages_B[envs]].T
        first_column = self._first_column_R[self._room_B[envs]]
        self._position_B[envs] = self._index(first_column + column, 1 + row)
        self._heading_B[envs] = heading

    def _move(self, action_B: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        passes_B = self._tried_cell_B > 0
        ahead_B = self._position_B + self._stride_by_heading[self._heading_B]
        code_B = self._map_BM[self._envs_B, ahead_B]
        forward_B = (action_B == FORWARD) & ~passes_B
        moves_B = forward_B & (code_B != WALL) & (code_B < DOOR)
        self._heading_B = (self._heading_B + TURN[action_B]) % 4
        self._position_B = np.where(moves_B, ahead_B, self._position_B)
        if len(envs := np.flatnonzero(passes_B)):
            self._pass(envs)
        if len(envs := np.flatnonzero(forward_B & (code_B >= DOOR))):
            self._try(envs, ahead_B[envs])
        reached_B = passes_B & (self._room_B == self.n_rooms)
        return reached_B, reached_B | (self._passages_B == self._max_passages)

    def _try(self, envs: NDArray[np.int64], door_cell: NDArray[np.int64]) -> None:
        """Decide for a door of the present room: it shows whether it leads on."""
        room = self._room_B[envs]
        door = np.where(door_cell % self._column < self._middle, UPPER, LOWER)
        right = door == self._right_door_BR[envs, room]
        known = self._tried_BR[envs, room]
        self._repeatable_B[envs] += known
        self._repeated_B[envs] += known & ~right
        self._tried_BR[envs, room] = True
        self._tried_cell_B[envs] = door_cell
        self._leads_on_B[envs] = right
        self._map_BM[envs, door_cell] += np.where(right, N_COLOURS, 2 * N_COLOURS).astype(np.uint8)

    def _pass(self, envs: NDArray[np.int64]) -> None:
        """Go where the door tried leads, and arrive there."""
        right = self._leads_on_B[envs]
        shown = np.where(right, N_COLOURS, 2 * N_COLOURS).astype(np.uint8)
        self._map_BM[envs, self._tried_cell_B[envs]] -= shown
        self._tried_cell_B[envs] = 0
        self._passages_B[envs] += 1
        self._room_B[envs] = np.where(right, self._room_B[envs] + 1, 0)
        self._reached_B[envs] = np.maximum(self._reached_B[envs], self._room_B[envs])
        self._arrive(envs)

    def _marks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        tries_B = self._tried_cell_B > 0
        known_B = self._tried_BR[self._envs_B, self._room_B]  # never true of the goal
        decides_B = known_B & ~tries_B & (self._code_BC >= DOOR).any(1)
        return np.where(tries_B, self._room_B, -1), np.where(decides_B, self._room_B, -1)

    def _tallies(self) -> dict[str, NDArray[np.int64]]:
        return {
            "repeated_mistakes": self._repeated_B,
            "repeated_mistakes_of": self._repeatable_B,
            "rooms_reached": self._reached_B,
        }

    def _paint(self, i: int) -> NDArray[np.uint8]:
        if self._painter is None:
            self._painter = PortalEnv(
                self.n_rooms,
                self.room_size,
                self.view_size,
                render_mode="rgb_array",
                tile_size=self.tile_size,
            )
        episode = self._episodes[i]
        assert episode is not None
        room = int(self._room_B[i])
        self._painter.lay_out(episode, room)
        if tried := int(self._tried_cell_B[i]):
            self._painter.show_outcome(UPPER if tried % self._column < self._middle else LOWER)
        column, row = self._cell(int(self._position_B[i]))
        self._painter.agent_pos = (1 + column - int(self._first_column_R[room]), row)
        self._painter.agent_dir = int(self._heading_B[i])
        frame: NDArray[np.uint8] = self._painter.render()  # type: ignore[no-untyped-call]
        return frame

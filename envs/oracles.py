"""Scripted policies that earn the best return of each environment from its observations alone.

They prove that a task can be solved by memory, and are the upper line in plots. An oracle is
called with what a trained policy would get: a batch of observations and the episode starts.

B environments, O observation features.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, DIR_TO_VEC, OBJECT_TO_IDX, STATE_TO_IDX
from numpy.typing import NDArray

from .collision import NO_COLOUR, SIDE
from .corridor import COLOURS
from .portal import LOWER, UPPER

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
            _check_all_start(starts_B)
            self._colour_B = np.zeros(len(starts_B), np.int64)
        if self.remember:
            ball_BC = cells_BCF[..., 0] == OBJECT_TO_IDX["ball"]
            seen_B = np.where(ball_BC, cells_BCF[..., 1], 0).max(1)
        else:
            guess_B = self.np_random.integers(len(COLOURS), size=len(starts_B))
            seen_B = np.array([COLOR_TO_IDX[colour] for colour in COLOURS])[guess_B]
        self._colour_B = np.where(starts_B, seen_B, self._colour_B)


class PortalOracle:
    """Finds its place in the room, tries a door where it knows none, and remembers the outcome.

    Keeps the set of places (column, row, heading) at which everything seen since the arrival would
    have been seen, and walks as if it stood at the first of them. Counts the rooms it passes, as
    the doors show what they are.

    With `remember=False` it chooses a door at random every time and earns `RETURN_WITHOUT_MEMORY`
    on average: the same walk without the memory. `seed` is for the choices of both.

    Shapes: obs_BO uint8, flattened views of any size; starts_B bool, the first step of an episode;
    actions_B int64. `room_size` must be that of the environment and at most the view's size: with
    smaller views the two doors can look the same.
    """

    def __init__(self, remember: bool = True, seed: int | None = None, room_size: int = 3) -> None:
        self.remember = remember
        self.np_random = np.random.default_rng(seed)
        self.room_size = room_size
        self._chains: list[_Chain] = []

    def act(self, obs_BO: NDArray[np.uint8], starts_B: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Choose the next actions.

        Raises: ValueError if the first call for a batch does not start an episode everywhere.
        """
        size = isqrt(obs_BO.shape[1] // 3)
        if len(self._chains) != len(starts_B):
            _check_all_start(starts_B)
            plan = _RoomPlan(self.room_size, size)
            self._chains = [_Chain(plan, self.np_random, self.remember) for _ in starts_B]
        cells_BCF = obs_BO.reshape(len(obs_BO), -1, 3)
        rows = zip(self._chains, cells_BCF, starts_B, strict=True)
        return np.array([chain.act(cells_CF, bool(start)) for chain, cells_CF, start in rows])


class CollisionOracle:
    """Notes where each pair of colours collided last, and answers that.

    With `remember=False` it answers at random and earns `RETURN_WITHOUT_MEMORY` on average. `seed`
    is for these choices.

    Shapes: obs_BO uint8; starts_B bool, the first step of an episode; actions_B int64.
    """

    def __init__(self, remember: bool = True, seed: int | None = None) -> None:
        self.remember = remember
        self.np_random = np.random.default_rng(seed)
        self._quarter_BCC = np.zeros((0, 0, 0), np.int64)

    def act(self, obs_BO: NDArray[np.uint8], starts_B: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Choose the next actions."""
        B = len(obs_BO)
        if len(self._quarter_BCC) != B:
            self._quarter_BCC = np.zeros((B, NO_COLOUR + 1, NO_COLOUR + 1), np.int64)
        if not self.remember:
            return self.np_random.integers(4, size=B)
        # symbols: column, row, colour; column, row, colour; touching; the colours asked about
        x_B, y_B, colour_B, _, _, other_B, touching_B, one_B, two_B = obs_BO.astype(np.int64).T
        answer_B: NDArray[np.int64] = self._quarter_BCC[np.arange(B), one_B, two_B]
        quarter_B = 2 * (2 * y_B >= SIDE) + (2 * x_B >= SIDE)
        # questions are about earlier collisions, so that of this step is noted after the answer
        hit = np.flatnonzero(touching_B)
        self._quarter_BCC[hit, colour_B[hit], other_B[hit]] = quarter_B[hit]
        self._quarter_BCC[hit, other_B[hit], colour_B[hit]] = quarter_B[hit]
        return answer_B


class _RoomPlan:
    """What is seen at every place of a room, where actions lead, and the way to either door.

    A place is a number: ((column * room_size) + row) * 4 + heading, from 0.
    """

    def __init__(self, room_size: int, view_size: int) -> None:
        if view_size < room_size:
            raise ValueError(
                f"room_size = {room_size} is above view_size = {view_size}: the doors of such a "
                "room can look the same; use a larger view or smaller rooms"
            )
        self.n_places = room_size * room_size * 4
        self.views: list[bytes] = []
        self.next_place = np.zeros((self.n_places, 3), np.int64)
        door_rows = (room_size // 2 - 1, room_size // 2 + 1)
        distance = np.full((2, self.n_places), self.n_places)
        before_door = []
        for place in range(self.n_places):
            cell, heading = divmod(place, 4)
            column, row = divmod(cell, room_size)
            east, south = DIR_TO_VEC[heading]
            ahead = (column + east, row + south)
            inside = 0 <= ahead[0] < room_size and 0 <= ahead[1] < room_size
            walked = (ahead[0] * room_size + ahead[1]) * 4 + heading if inside else place
            turns = (cell * 4 + (heading - 1) % 4, cell * 4 + (heading + 1) % 4)
            self.next_place[place] = (*turns, walked)
            before_door += [
                (door, place) for door in (UPPER, LOWER) if ahead == (room_size, door_rows[door])
            ]
            kinds = bytearray()
            for right in range(-(view_size // 2), view_size // 2 + 1):
                for far in range(view_size - 1, -1, -1):
                    x, y = column + far * east - right * south, row + far * south + right * east
                    is_door = x == room_size and y in door_rows
                    is_floor = 0 <= x < room_size and 0 <= y < room_size
                    kinds.append(2 if is_door else 1 if is_floor else 0)
            self.views.append(bytes(kinds))
        for door, place in before_door:
            distance[door, place] = 0
        for _ in range(self.n_places):
            distance = np.minimum(distance, 1 + distance[:, self.next_place].min(2))
        self.distance = distance
        self.way = distance[:, self.next_place].argmin(2)


class _Chain:
    """The oracle's knowledge of one environment's episode."""

    def __init__(self, plan: _RoomPlan, np_random: np.random.Generator, remember: bool) -> None:
        self.plan = plan
        self.np_random = np_random
        self.remember = remember
        self.right_door: dict[int, int] = {}
        self.places: list[int] = []
        self.room = self.door = 0
        self.tries = False

    def act(self, cells_CF: NDArray[np.uint8], start: bool) -> int:
        """Choose the next action, given the (object, colour, state) of the cells in view."""
        objects_C = cells_CF[:, 0]
        if start:
            self.right_door = {}
            self._arrive(room=0)
        elif self.tries:
            # the door ahead shows what it is; the agent is taken on whatever it does
            states_C = cells_CF[objects_C == OBJECT_TO_IDX["door"], 2]
            leads_on = bool((states_C == STATE_TO_IDX["open"]).any())
            self.right_door[self.room] = self.door if leads_on else 1 - self.door
            self._arrive(room=self.room + 1 if leads_on else 0)
            self.tries = False
            return FORWARD
        kinds_C = np.where(objects_C == OBJECT_TO_IDX["door"], 2, 1)
        view = np.where(objects_C == OBJECT_TO_IDX["wall"], 0, kinds_C).astype(np.uint8).tobytes()
        fitting = [place for place, seen in enumerate(self.plan.views) if seen == view]
        # none in common: other actions were taken than these
        self.places = [place for place in self.places if place in fitting] or fitting
        place = self.places[0]
        self.tries = self.plan.distance[self.door, place] == 0
        action = FORWARD if self.tries else int(self.plan.way[self.door, place])
        if not self.tries:
            self.places = [int(self.plan.next_place[place, action]) for place in self.places]
        return action

    def _arrive(self, room: int) -> None:
        self.room = room
        self.places = list(range(self.plan.n_places))
        guess = int(self.np_random.integers(2))
        self.door = self.right_door.get(room, guess) if self.remember else guess


def _check_all_start(starts_B: NDArray[np.bool_]) -> None:
    if not starts_B.all():
        raise ValueError(
            f"starts_B marks {int(starts_B.sum())} of {len(starts_B)} environments in the "
            "first call for this batch; reset them all and pass all True"
        )

"""Portal: find, and remember, which door of every room leads on.

What both forms of the environment share comes first (the episode, its limits), then the single
form. `portal_vector` holds the vector form.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from minigrid.core.constants import COLOR_NAMES, TILE_PIXELS
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Door, Floor, Goal
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray

from .bounds import check_render_mode, check_tile_size, check_whole
from .views import check_view_size, view_space

COLOURS = tuple(COLOR_NAMES)
"""Colours of doors. An episode names them by their place in this tuple."""

PAIRS = np.array(list(combinations(range(len(COLOURS)), 2)))
"""The pairs of different colours, 15 x 2. No two rooms of an episode have the same pair."""

UPPER, LOWER = 0, 1
"""The two doors of a room, in the eastern wall, above and below its middle row."""

MIN_ROOM_SIZE = 3
"""Smallest room: the doors lie in the rows above and below the middle one."""

STEPS_PER_PASSAGE = 6
"""Times `room_size`, how many steps a passage may take on average; the shortest takes at most
3 * room_size + 1."""


class Episode(NamedTuple):
    """What is drawn at random once per episode."""

    colours: NDArray[np.int64]
    """Colour of each room's doors, indices into `COLOURS`. Shape (n_rooms, 2), upper and lower."""

    right_door: NDArray[np.int64]
    """The door of each room that leads on, `UPPER` or `LOWER`. Shape (n_rooms,)."""

    arrivals: NDArray[np.int64]
    """Column and row in the room (from 0) and heading at the start and after each passage. Shape
    (max_passages + 1, 3)."""


def draw_episode(np_random: np.random.Generator, n_rooms: int, room_size: int) -> Episode:
    """Draw an episode: colours of the doors, which of them lead on, and places of arrival.

    Both forms of the environment draw here and nowhere else, in this order: that is what makes
    them play the same episodes under the same seed.
    """
    pairs = PAIRS[np_random.permutation(len(PAIRS))[:n_rooms]]
    return Episode(
        colours=np_random.permuted(pairs, axis=1),
        right_door=np_random.integers(2, size=n_rooms),
        arrivals=np_random.integers((room_size, room_size, 4), size=(max_passages(n_rooms) + 1, 3)),
    )


def max_passages(n_rooms: int) -> int:
    """Doors an agent may pass: as many as perfect memory needs if every first guess is wrong.

    The mistake in room k costs the k passages from the start to it; then all rooms are passed.
    """
    n_rooms = int(n_rooms)  # MiniGrid takes no integers of numpy's
    return n_rooms * (n_rooms + 1) // 2 + n_rooms


def step_limit(n_rooms: int, room_size: int) -> int:
    """Steps after which an episode is lost: 6 * room_size for each passage allowed."""
    return max_passages(n_rooms) * STEPS_PER_PASSAGE * int(room_size)


def return_by_guessing(n_rooms: int) -> float:
    """Probability of `n_rooms` right guesses in a row within `max_passages` guesses."""
    in_a_row = np.zeros(n_rooms + 1)
    in_a_row[0] = 1.0
    for _ in range(max_passages(n_rooms)):
        moved = np.zeros_like(in_a_row)
        moved[1:] = in_a_row[:-1] / 2
        moved[0] = in_a_row[:-1].sum() / 2
        moved[-1] += in_a_row[-1]
        in_a_row = moved
    return float(in_a_row[-1])


def check_arguments(n_rooms: int, room_size: int, view_size: int) -> None:
    """Raise ValueError, naming argument, value and bound, unless all three can be played."""
    check_whole(n_rooms=n_rooms, room_size=room_size, view_size=view_size)
    if not 1 <= n_rooms <= len(PAIRS):
        raise ValueError(
            f"n_rooms = {n_rooms} is not between 1 and {len(PAIRS)}, the number of pairs of door "
            "colours; every room has its own pair"
        )
    if room_size < MIN_ROOM_SIZE or room_size % 2 == 0:
        raise ValueError(
            f"room_size = {room_size} is not an odd number of at least {MIN_ROOM_SIZE}; use 3, 5 "
            "or 7: the doors lie above and below the middle row"
        )
    check_view_size(view_size)


class PortalEnv(MiniGridEnv):
    """
    ## Description

    A chain of rooms. Each has two doors of different colours in its eastern wall: one leads to the
    next room, the other back to the first. Which is which is fixed within an episode and drawn anew
    for each, so it has to be found by trial and remembered. Moving against a door shows which it is
    for one step: the right one opens, the wrong one is locked. The next step, whatever it is, takes
    the agent to a random place of the room it leads to, looking in a random direction, so that it
    sees a part of it. No two rooms of an episode have the same two colours, and the first has a
    tiled floor. The last room's right door leads to the goal.

        #####  #####  #####
        #:::A  #...B  #...E     A B  the doors: one leads on, the other back to the first room
        #:>:#  #...#  #...#     >    the agent
        #:::C  #...D  #...B     :    the first room's floor
        #####  #####  #####

    This is the portal task of Sukhbaatar et al. 2021 (arXiv:2105.06548), rebuilt on MiniGrid from
    its description; its code is not public.

    ## Mission

    "find the way through all rooms". It is not part of the observation.

    ## Action space

    `Discrete(3)`: 0 turn left, 1 turn right, 2 move forward. Moving against a door decides for it.

    ## Observation space

    MiniGrid's partial view: `view_size` x `view_size` cells, the agent in the middle of the last
    row, every cell as (object, colour, state), nothing but walls beyond the room. Flattened in C
    order to a `uint8` vector; `obs.reshape(view_size, view_size, 3)` is MiniGrid's `image`.

    ## Rewards

    +1 for reaching the goal, otherwise 0.

    - `OPTIMAL_RETURN`, undiscounted: 1.0.
    - `RETURN_WITHOUT_MEMORY`, the best possible: the probability of `n_rooms` right guesses in a
      row within the passages allowed, `return_by_guessing`: 0.465 for 3 rooms, 0.250 for 5, 0.028
      for 10.

    ## Termination

    At the goal, or, without reward, after n_rooms * (n_rooms + 3) / 2 passages, as many as perfect
    memory needs if all its first guesses are wrong, or after 6 * room_size steps for each of them.
    Running out is a loss, not a cut: never truncated.

    ## Info

    - `memory`, in every step and at reset: `cue` is k while a door of room k shows what it is,
      otherwise -1; `decision` is k while the agent can act and sees a door of room k, one of whose
      doors it has tried before in this episode, otherwise -1.
    - At the end of an episode only: `is_success` (bool), whether the goal was reached, and
      `tallies`: `repeated_mistakes`, decisions for a wrong door of a room in which a door had
      been tried before; `repeated_mistakes_of`, all decisions in such rooms; `rooms_reached`,
      the highest number of rooms passed in a row.

    ## Arguments

    - `n_rooms`: rooms of the chain, 1 to 15.
    - `room_size`: side of a room, in cells, odd and at least 3.
    - `view_size`: side of the view, in cells, odd and at least 3.
    - `render_mode`: "human", "rgb_array" (the vector form has this one only) or None.
    - `tile_size`: pixels per cell in pictures, which show all rooms side by side.

    Raises: ValueError for arguments out of bounds, and for actions that do not exist.

    ## Registered ids

    - `ExpireSpan/Portal-v0`: 5 rooms
    - `ExpireSpan/Portal-3-v0`, `ExpireSpan/Portal-5-v0`, `ExpireSpan/Portal-10-v0`
    """

    OPTIMAL_RETURN = 1.0

    def __init__(
        self,
        n_rooms: int = 5,
        room_size: int = 3,
        view_size: int = 5,
        render_mode: str | None = None,
        tile_size: int = TILE_PIXELS,
    ) -> None:
        check_arguments(n_rooms, room_size, view_size)
        check_tile_size(tile_size)
        check_render_mode(render_mode, "human", "rgb_array")
        self.n_rooms = n_rooms
        self.room_size = room_size
        self.RETURN_WITHOUT_MEMORY = return_by_guessing(n_rooms)
        self.middle = 1 + room_size // 2
        super().__init__(
            mission_space=MissionSpace(mission_func=self._gen_mission),
            grid_size=room_size + 2,
            max_steps=step_limit(n_rooms, room_size),
            see_through_walls=True,
            agent_view_size=view_size,
            render_mode=render_mode,
            tile_size=tile_size,
        )
        self.action_space = spaces.Discrete(3)
        self.observation_space = view_space(view_size)

    @staticmethod
    def _gen_mission() -> str:
        return "find the way through all rooms"

    # MiniGridEnv leaves its type variables unbound, so no signature of ours can match it
    def reset(  # type: ignore[override]
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode. `options` are not used."""
        obs, _ = super().reset(seed=seed, options=options)
        return obs["image"].reshape(-1), {"memory": self._marks()}

    def step(  # type: ignore[override]
        self, action: int
    ) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Take one of the three actions; see the class for what comes back."""
        if isinstance(action, bool) or not self.action_space.contains(action):
            raise ValueError(
                f"action = {action!r} is none of 0 (turn left), 1 (turn right), 2 (move forward)"
            )
        if self.door_tried is not None:
            self._pass()
            action = self.actions.done  # MiniGrid's action that does nothing
        elif action == self.actions.forward and isinstance(self.grid.get(*self.front_pos), Door):
            self._try(UPPER if self.front_pos[1] < self.middle else LOWER)
            action = self.actions.done
        _, _, _, out_of_steps, _ = super().step(action)
        reached = self.room == self.n_rooms
        over = reached or out_of_steps or self.passages == max_passages(self.n_rooms)
        info: dict[str, Any] = {"memory": self._marks()}
        if over:
            info["is_success"] = reached
            info["tallies"] = dict(self.tallies)
        image = self.gen_obs()["image"]  # type: ignore[no-untyped-call]
        return image.reshape(-1), float(reached), over, False, info

    def lay_out(self, episode: Episode, room: int) -> None:
        """Build the grid of `room`; room n_rooms is the goal."""
        self.episode = episode
        self.room = room
        self.grid = self._room_grid(room)

    def _room_grid(self, room: int) -> Grid:
        grid = Grid(self.width, self.height)
        grid.wall_rect(0, 0, self.width, self.height)
        for column in range(1, self.room_size + 1):
            for row in range(1, self.room_size + 1):
                if room == 0:
                    grid.set(column, row, Floor("grey"))
                elif room == self.n_rooms:
                    grid.set(column, row, Goal())
        if room < self.n_rooms:
            for door in (UPPER, LOWER):
                colour = COLOURS[self.episode.colours[room, door]]
                grid.set(*self._door_position(door), Door(colour))
        return grid

    def _door_position(self, door: int) -> tuple[int, int]:
        return self.width - 1, self.middle + (-1 if door == UPPER else 1)

    def _gen_grid(self, width: int, height: int) -> None:
        self.passages = 0
        self.door_tried: int | None = None
        self.tried = np.zeros(self.n_rooms, np.bool_)
        self.tallies = {"repeated_mistakes": 0, "repeated_mistakes_of": 0, "rooms_reached": 0}
        self.lay_out(draw_episode(self.np_random, self.n_rooms, self.room_size), room=0)
        self._arrive()

    def _arrive(self) -> None:
        column, row, heading = self.episode.arrivals[self.passages].tolist()
        self.agent_pos = (1 + column, 1 + row)
        self.agent_dir = heading

    def _try(self, door: int) -> None:
        """Decide for a door of the present room: it shows whether it leads on."""
        right = bool(door == self.episode.right_door[self.room])
        if self.tried[self.room]:
            self.tallies["repeated_mistakes_of"] += 1
            self.tallies["repeated_mistakes"] += int(not right)
        self.tried[self.room] = True
        self.door_tried = door
        self.show_outcome(door)

    def show_outcome(self, door: int) -> None:
        """Open the door if it leads on, lock it if not."""
        right = bool(door == self.episode.right_door[self.room])
        colour = COLOURS[self.episode.colours[self.room, door]]
        outcome = Door(colour, is_open=right, is_locked=not right)
        self.grid.set(*self._door_position(door), outcome)

    def _pass(self) -> None:
        """Go where the door tried leads, and arrive there."""
        right = self.door_tried == self.episode.right_door[self.room]
        self.door_tried = None
        self.passages += 1
        self.lay_out(self.episode, self.room + 1 if right else 0)
        self.tallies["rooms_reached"] = max(self.tallies["rooms_reached"], self.room)
        self._arrive()

    def _marks(self) -> dict[str, int]:
        if self.door_tried is not None:
            return {"cue": self.room, "decision": -1}
        known = self.room < self.n_rooms and self.tried[self.room]
        sees_door = any(
            self.in_view(*self._door_position(door))  # type: ignore[no-untyped-call]
            for door in (UPPER, LOWER)
        )
        return {"cue": -1, "decision": self.room if known and sees_door else -1}

    def get_frame(
        self, highlight: bool = True, tile_size: int = TILE_PIXELS, agent_pov: bool = False
    ) -> NDArray[np.uint8]:
        """MiniGrid's picture of the agent's room, between pictures of all others."""
        frame: NDArray[np.uint8] = super().get_frame(highlight, tile_size, agent_pov)
        if agent_pov:
            return frame
        rooms = [
            frame
            if room == self.room
            else self._room_grid(room).render(tile_size, agent_pos=(-1, -1))
            for room in range(self.n_rooms + 1)
        ]
        return np.concatenate(rooms, axis=1)

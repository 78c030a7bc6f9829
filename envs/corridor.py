"""Corridor: see a colour, walk far, choose the goal of that colour.

What both forms of the environment share comes first (the episode and its limit), then the
single form. `corridor_vector` holds the vector form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from minigrid.core.constants import DIR_TO_VEC, TILE_PIXELS
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Goal
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray

from .bounds import check_render_mode, check_tile_size, check_whole
from .views import check_view_size, view_space

COLOURS = ("red", "blue")
"""Colours of cue and goals. An episode names them by their place in this tuple."""

WALKWAY = 2
"""The row the agent walks in; cue and goals lie in the rows above and below it."""

HEIGHT = 5
WINDOW = 15
"""Cells that a window shows in width and height."""
CUE_CELL = (1, WALKWAY - 1)
START_CELL = (1, WALKWAY)
EAST = 0

MIN_LENGTH = 3
"""Shortest corridor: a wall has to part the cue's cell from the goal's."""


class Episode(NamedTuple):
    """What is drawn at random once per episode. Colours are indices into `COLOURS`."""

    length: int
    """Cells of the walkway: the agent starts in column 1, the goals lie beside column `length`."""

    cue: int
    """Colour of the cue, and so of the goal that pays."""

    upper_goal: int
    """Colour of the goal above the walkway; the lower goal has the other colour."""


def draw_episode(
    np_random: np.random.Generator, min_length: int, max_length: int, shuffle_goals: bool
) -> Episode:
    """Draw an episode: the length is uniform from `min_length` to `max_length` inclusive; the red
    goal is the upper one unless goals are shuffled.

    Both forms of the environment draw here and nowhere else, in this order: that is what makes
    them play the same episodes under the same seed.
    """
    return Episode(
        length=int(np_random.integers(min_length, max_length + 1)),
        cue=int(np_random.integers(len(COLOURS))),
        upper_goal=int(np_random.integers(len(COLOURS))) if shuffle_goals else 0,
    )


def step_limit(length: int) -> int:
    """Steps after which an episode in a corridor of this length is lost: 4 * length + 20.

    An agent that knows the way needs length + 1. The rest leaves room for exploration.
    """
    return 4 * int(length) + 20  # MiniGrid takes no integers of numpy's


def check_arguments(min_length: int, max_length: int, view_size: int) -> None:
    """Raise ValueError, naming argument, value and bound, unless all three can be played."""
    check_whole(min_length=min_length, max_length=max_length, view_size=view_size)
    if min_length < MIN_LENGTH:
        raise ValueError(
            f"min_length = {min_length} is below {MIN_LENGTH}, the shortest corridor with a wall "
            f"between cue and goal; use {MIN_LENGTH} or more"
        )
    if max_length < min_length:
        raise ValueError(
            f"max_length = {max_length} is below min_length = {min_length}; raise max_length, or "
            f"lower min_length (default {MIN_LENGTH})"
        )
    check_view_size(view_size)


class CorridorEnv(MiniGridEnv):
    """
    ## Description

    The agent starts at the western end of a corridor, beside a coloured ball, the cue. At the
    eastern end, beside the last cell, the junction, lie two goals, one of each colour, the red one
    above unless `shuffle_goals`. The goal of the cue's colour pays. The cue is out of view after
    one step with the smallest view, so its colour has to be remembered for as long as the corridor
    is. Everything seen on the way is the same in every episode.

        ###########
        #B#######G#     B  the cue, a red or a blue ball
        #>        #     >  the agent, facing east
        #########G#     G  the goals, one red and one blue
        ###########

    Its length is uniform from `min_length` to `max_length` inclusive. This is the corridor task of
    Sukhbaatar et al. 2021 (arXiv:2105.06548), rebuilt on MiniGrid; its code is not public.

    ## Mission

    "go to the goal of the ball's colour". It is not part of the observation.

    ## Action space

    `Discrete(3)`: 0 turn left, 1 turn right, 2 move forward. The corridor is too narrow to turn in:
    a turn does nothing unless it makes the agent face a goal. So the agent can wait or walk east,
    and at the junction choose a side, once. That keeps exploration out of the task: a random
    policy reaches the goals in nearly all episodes, and what is left is memory.

    ## Observation space

    MiniGrid's partial view: `view_size` x `view_size` cells, the agent in the middle of the last
    row, walls transparent, every cell as (object, colour, state). Flattened in C order to a
    `uint8` vector; `obs.reshape(view_size, view_size, 3)` is MiniGrid's `image`.

    ## Rewards

    +1 for stepping on the goal of the cue's colour, otherwise 0.

    - `OPTIMAL_RETURN`, undiscounted: 1.0.
    - `RETURN_WITHOUT_MEMORY`, the best possible: 0.5. A view of 5 cells or more shows the ball of
      the shortest corridors again, but only to an agent that faces the upper goal, and so has
      chosen.

    ## Termination

    On stepping on either goal, or, without reward, after 4 * length + 20 steps, the length being
    that of the episode's corridor. Running out of steps is a loss, not a cut: never truncated. Were
    it a cut, bootstrapping would value waiting at the junction for ever as highly as a choice.

    ## Info

    - `memory`, in every step and at reset: `cue` is 0 while the ball is in view, otherwise -1;
      `decision` is 0 while the agent stands on the junction, otherwise -1: there the colour of cue
      number 0 is needed.
    - `is_success` (bool), at the end of an episode only: whether the goal of the cue's colour was
      reached.

    ## Arguments

    - `min_length`, `max_length`: bounds of the corridor's length, in cells, at least 3.
    - `view_size`: side of the view, in cells, odd and at least 3.
    - `shuffle_goals`: whether the sides of the goals are drawn at random in every episode. The
      choice is then an exclusive or of two colours, much harder to learn; memory needs the same.
    - `render_mode`: "human", "rgb_array" (the vector form has this one only) or None.
    - `tile_size`: pixels per cell in pictures. Pictures are max_length + 2 cells wide in every
      episode, black beyond the corridor's end, because videos need frames of one size.

    Raises: ValueError for lengths or view sizes out of bounds, and for actions that do not exist.

    ## Registered ids

    - `ExpireSpan/Corridor-v0`
    """

    OPTIMAL_RETURN = 1.0
    RETURN_WITHOUT_MEMORY = 0.5

    def __init__(
        self,
        min_length: int = MIN_LENGTH,
        max_length: int = 200,
        view_size: int = 3,
        shuffle_goals: bool = False,
        render_mode: str | None = None,
        tile_size: int = TILE_PIXELS,
    ) -> None:
        check_arguments(min_length, max_length, view_size)
        check_tile_size(tile_size)
        check_render_mode(render_mode, "human", "rgb_array")
        self.min_length = min_length
        self.max_length = max_length
        self.shuffle_goals = shuffle_goals
        super().__init__(
            mission_space=MissionSpace(mission_func=self._gen_mission),
            width=max_length + 2,
            height=HEIGHT,
            max_steps=step_limit(max_length),
            see_through_walls=True,
            agent_view_size=view_size,
            render_mode=render_mode,
            tile_size=tile_size,
        )
        self.action_space = spaces.Discrete(3)
        self.observation_space = view_space(view_size)

    @staticmethod
    def _gen_mission() -> str:
        return "go to the goal of the ball's colour"

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
            # MiniGrid itself would pick up the ball with action 3.
            raise ValueError(
                f"action = {action!r} is none of 0 (turn left), 1 (turn right), 2 (move forward)"
            )
        if action != self.actions.forward and not self._faces_goal_after(action):
            action = self.actions.done  # MiniGrid's action that does nothing
        obs, reward, reached, out_of_steps, _ = super().step(action)
        over = reached or out_of_steps
        info: dict[str, Any] = {"memory": self._marks()}
        if over:
            info["is_success"] = bool(reward)
        return obs["image"].reshape(-1), float(reward), over, False, info

    def _faces_goal_after(self, turn: int) -> bool:
        turned = (self.agent_dir + (1 if turn == self.actions.right else -1)) % 4
        cell = self.grid.get(*(np.array(self.agent_pos) + DIR_TO_VEC[turned]))
        return cell is not None and cell.type == "goal"

    def lay_out(self, episode: Episode) -> None:
        """Build the grid of `episode` and put the agent at its start."""
        self.episode = episode
        self.max_steps = step_limit(episode.length)
        self.width = episode.length + 2
        self.grid = Grid(self.width, HEIGHT)
        for row in range(HEIGHT):
            self.grid.horz_wall(0, row)
        for column in range(1, episode.length + 1):
            self.grid.set(column, WALKWAY, None)
        cue = Ball(COLOURS[episode.cue])  # type: ignore[no-untyped-call]
        self.put_obj(cue, *CUE_CELL)
        upper, lower = COLOURS[episode.upper_goal], COLOURS[1 - episode.upper_goal]
        self.put_obj(Goal(upper), episode.length, WALKWAY - 1)
        self.put_obj(Goal(lower), episode.length, WALKWAY + 1)
        self.agent_pos = START_CELL
        self.agent_dir = EAST

    def get_frame(
        self, highlight: bool = True, tile_size: int = TILE_PIXELS, agent_pov: bool = False
    ) -> NDArray[np.uint8]:
        """MiniGrid's picture, padded on the right to the width of the longest corridor. For a
        window, which is square, the cells about the agent, as many as `WINDOW`."""
        frame: NDArray[np.uint8] = super().get_frame(highlight, tile_size, agent_pov)
        if agent_pov:
            return frame
        if self.render_mode == "human":
            above, beside = ((WINDOW - n) // 2 * tile_size for n in (HEIGHT, 1))
            framed = np.pad(frame, ((above, above), (beside, beside), (0, 0)))
            left = int(self.agent_pos[0]) * tile_size
            return framed[:, left : left + WINDOW * tile_size]
        missing = (self.max_length - self.episode.length) * tile_size
        return np.pad(frame, ((0, 0), (0, missing), (0, 0)))

    def _gen_grid(self, width: int, height: int) -> None:
        self.lay_out(
            draw_episode(self.np_random, self.min_length, self.max_length, self.shuffle_goals)
        )

    def _reward(self) -> float:
        reached = self.grid.get(*self.agent_pos)
        return float(reached is not None and reached.color == COLOURS[self.episode.cue])

    def _marks(self) -> dict[str, int]:
        sees_cue = self.in_view(*CUE_CELL)  # type: ignore[no-untyped-call]
        at_junction = tuple(self.agent_pos) == (self.episode.length, WALKWAY)
        return {"cue": 0 if sees_cue else -1, "decision": 0 if at_junction else -1}

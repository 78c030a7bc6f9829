"""Collision: two particles, and questions about where their colours last met.

What both forms of the environment share comes first, then the single form. `collision_vector`
holds the vector form.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from minigrid.core.constants import TILE_PIXELS
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball
from numpy.typing import NDArray

from .bounds import check_render_mode, check_tile_size, check_whole
from .chances import CHANCE_RANGE, CHUNK, draw_chances

SIDE = 16
"""Cells along each side of the world."""

COLOURS = ("red", "green", "blue", "purple", "yellow")

PAIRS = np.array(list(combinations_with_replacement(range(len(COLOURS)), 2)))
"""The pairs of colours, whatever their order, 15 x 2; a colour can meet itself."""

PAIR_OF = np.zeros((len(COLOURS), len(COLOURS)), np.int64)
"""The number of the pair that two colours make."""
for _pair, (_first, _second) in enumerate(PAIRS):
    PAIR_OF[_first, _second] = PAIR_OF[_second, _first] = _pair

NO_COLOUR = len(COLOURS)
"""Shown in place of the colours while nothing is asked."""

DIRECTIONS = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y])
"""Steps a particle can take, 8 x 2."""

CHANGE_RATE = 0.05
"""Share of the steps at which a particle changes colour, and at which it changes direction."""

REPEAT_SHARE = 0.4
"""Share of the questions that are about the pair that collided last."""

SUCCESS_SHARE = 0.95
"""Share of right answers from which an episode counts as a success."""

N_CHANCES = 12
NEW_COLOUR, WHICH_COLOUR, NEW_DIRECTION, WHICH_DIRECTION, WHICH_CELL = (
    slice(first, first + 2) for first in range(0, 10, 2)
)
REPEAT, WHICH_PAIR = 10, 11
"""What the chances of a step decide: the first five for each particle."""

CHANGES_BELOW = round(CHANGE_RATE * CHANCE_RANGE)
REPEATS_BELOW = round(REPEAT_SHARE * CHANCE_RANGE)


def observation_space() -> spaces.Box:
    """Column, row and colour of each particle, whether they touch, and two colours asked about."""
    place_and_colour = [SIDE - 1, SIDE - 1, len(COLOURS) - 1]
    high = np.array([*place_and_colour, *place_and_colour, 1, NO_COLOUR, NO_COLOUR], np.uint8)
    return spaces.Box(np.zeros_like(high), high, dtype=np.uint8)


def draw_start(np_random: np.random.Generator) -> NDArray[np.int64]:
    """Place (2), colour and direction of each particle at the start of an episode. Shape (2, 4)."""
    return np_random.integers((SIDE, SIDE, len(COLOURS), len(DIRECTIONS)), size=(2, 4))


def check_arguments(n_questions: int) -> None:
    """Raise ValueError, naming argument, value and bound."""
    check_whole(n_questions=n_questions)
    if n_questions < 1:
        raise ValueError(f"n_questions = {n_questions} is below 1; use 1 or more")


class CollisionEnv(gym.Env[NDArray[Any], np.int64]):
    """
    ## Description

    Two particles move on a grid and bounce off its walls. Now and then one changes its colour or
    its direction. Where they touch they collide, and are scattered to random places. Once two pairs
    of colours have collided, every step asks about one: in which quarter of the grid did it last
    collide? 40 % of the questions are about the pair that collided last, the others about any other
    pair that has collided in this episode.

    The moving-objects task of Sukhbaatar et al. 2021 (arXiv:2105.06548) as an environment, rebuilt
    from its description. The particles are scattered so that where they are now does not tell
    where they were.

    ## Action space

    `Discrete(4)`: the quarter in which the *first* particle was, 0 north-west, 1 north-east, 2
    south-west, 3 south-east. Ignored while nothing is asked.

    ## Observation space

    Nine symbols, `uint8`: column, row and colour of the first particle, the same of the second,
    whether they touch (0 or 1), and the two colours asked about (5 while nothing is asked).

    ## Rewards

    +1 for the right answer, otherwise 0.

    - `OPTIMAL_RETURN`, undiscounted: n_questions.
    - `RETURN_WITHOUT_MEMORY`, the best possible: n_questions / 4.

    ## Termination

    After `n_questions` answers; never truncated.

    ## Info

    - `memory`, in every step and at reset: `cue` is k when the observation shows collision k,
      `decision` is k when it asks about the colours of collision k; otherwise -1.
    - At the end of an episode only: `is_success` (bool), whether 95 % of the answers were right,
      and `tallies`: `right_answers` and all answers (`right_answers_of`).

    ## Arguments

    - `n_questions`: in an episode, at least 1.
    - `render_mode`: "rgb_array" or None; the colours asked about are drawn in the upper wall.
    - `tile_size`: pixels per cell in pictures.

    Raises: ValueError for arguments out of bounds, and for actions that do not exist.

    ## Registered ids

    - `ExpireSpan/Collision-v0`
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        n_questions: int = 200,
        render_mode: str | None = None,
        tile_size: int = TILE_PIXELS,
    ) -> None:
        check_arguments(n_questions)
        check_tile_size(tile_size)
        check_render_mode(render_mode, "rgb_array")
        self.n_questions = n_questions
        self.render_mode = render_mode
        self.tile_size = tile_size
        self.OPTIMAL_RETURN = float(n_questions)
        self.RETURN_WITHOUT_MEMORY = n_questions / 4
        self.observation_space = observation_space()
        self.action_space = spaces.Discrete(4)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode. `options` are not used."""
        super().reset(seed=seed)
        start = draw_start(self.np_random)
        self.place = start[:, :2].tolist()
        self.colour = start[:, 2].tolist()
        self.direction = DIRECTIONS[start[:, 3]].tolist()
        self.steps = self.answers = self.right_answers = self.collisions = 0
        self.quarter_of: dict[int, int] = {}
        self.collision_of: dict[int, int] = {}
        self.last_pair = self.asked = self.asked_collision = self.answer = -1
        self._collide()
        return self._observation(), {"memory": self._marks()}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Answer; see the class for what comes back."""
        if isinstance(action, bool) or not self.action_space.contains(action):
            raise ValueError(
                f"action = {action!r} is none of 0 (north-west), 1 (north-east), 2 (south-west), 3 "
                "(south-east)"
            )
        right = self.asked >= 0 and self.answer == int(action)
        self.answers += self.asked >= 0
        self.right_answers += right
        if self.steps % CHUNK == 0:
            self.chances = draw_chances(self.np_random, N_CHANCES)
        chance = self.chances[self.steps % CHUNK].tolist()
        self.steps += 1
        self._change(chance)
        self._ask(chance)
        self._collide()
        over = self.answers == self.n_questions
        info: dict[str, Any] = {"memory": self._marks()}
        if over:
            info["is_success"] = self.right_answers >= SUCCESS_SHARE * self.n_questions
            info["tallies"] = {
                "right_answers": self.right_answers,
                "right_answers_of": self.answers,
            }
        return self._observation(), float(right), over, False, info

    def _change(self, chance: list[int]) -> None:
        """New colours and directions by chance; then the particles move, or are scattered."""
        for i in range(2):
            if chance[NEW_COLOUR][i] < CHANGES_BELOW:
                others = len(COLOURS) - 1
                self.colour[i] += 1 + chance[WHICH_COLOUR][i] % others
                self.colour[i] %= len(COLOURS)
            if chance[NEW_DIRECTION][i] < CHANGES_BELOW or self.touching:
                self.direction[i] = DIRECTIONS[chance[WHICH_DIRECTION][i] % 8].tolist()
            if self.touching:
                row, column = divmod(chance[WHICH_CELL][i] % SIDE**2, SIDE)
                self.place[i] = [column, row]
                continue
            for axis in range(2):
                if not 0 <= self.place[i][axis] + self.direction[i][axis] < SIDE:
                    self.direction[i][axis] *= -1
                self.place[i][axis] += self.direction[i][axis]

    def _ask(self, chance: list[int]) -> None:
        """The question to be answered next, about the collisions before this step."""
        others = sorted(self.quarter_of.keys() - {self.last_pair})
        if not others:
            return
        self.asked = others[chance[WHICH_PAIR] % len(others)]
        if chance[REPEAT] < REPEATS_BELOW:
            self.asked = self.last_pair
        self.asked_collision = self.collision_of[self.asked]
        self.answer = self.quarter_of[self.asked]

    def _collide(self) -> None:
        """Note where the particles touch, if they do."""
        (x, y), (other_x, other_y) = self.place
        self.touching = abs(x - other_x) <= 1 and abs(y - other_y) <= 1
        if self.touching:
            pair = int(PAIR_OF[self.colour[0], self.colour[1]])
            self.quarter_of[pair] = 2 * (2 * y >= SIDE) + (2 * x >= SIDE)
            self.collision_of[pair] = self.collisions
            self.collisions += 1
            self.last_pair = pair

    # ---------------------------------------------------------------------------- what is returned

    def _observation(self) -> NDArray[np.uint8]:
        asked = PAIRS[self.asked].tolist() if self.asked >= 0 else [NO_COLOUR, NO_COLOUR]
        first, second = (
            [*place, colour] for place, colour in zip(self.place, self.colour, strict=True)
        )
        return np.array([*first, *second, int(self.touching), *asked], np.uint8)

    def _marks(self) -> dict[str, int]:
        cue = self.collisions - 1 if self.touching else -1
        return {"cue": cue, "decision": self.asked_collision}

    def render(self) -> NDArray[np.uint8] | None:
        """A picture of walls, particles and question, or None without a render mode."""
        if self.render_mode is None:
            return None
        return paint(self._observation(), self.tile_size)


def paint(observation: NDArray[np.uint8], tile_size: int) -> NDArray[np.uint8]:
    """The picture of an observation, drawn by MiniGrid."""
    x, y, colour, other_x, other_y, other_colour, _, *asked = observation.tolist()
    balls = [(1 + other_x, 1 + other_y, other_colour), (1 + x, 1 + y, colour)]
    balls += [(SIDE // 2 + i, 0, colour) for i, colour in enumerate(asked) if colour != NO_COLOUR]
    grid = Grid(SIDE + 2, SIDE + 2)
    grid.wall_rect(0, 0, SIDE + 2, SIDE + 2)
    for column, row, colour in balls:
        grid.set(column, row, Ball(COLOURS[colour]))  # type: ignore[no-untyped-call]
    frame: NDArray[np.uint8] = grid.render(tile_size, agent_pos=(-1, -1))
    return frame

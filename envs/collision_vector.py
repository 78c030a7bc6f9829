"""Collision for many environments at once: the same game as `CollisionEnv`, in array arithmetic.

B environments, 2 particles, P pairs of colours, E some of the environments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from minigrid.core.constants import TILE_PIXELS
from numpy.typing import NDArray

from .bounds import check_tile_size
from .chances import ChanceTable
from .collision import (
    CHANGES_BELOW,
    COLOURS,
    DIRECTIONS,
    N_CHANCES,
    NEW_COLOUR,
    NEW_DIRECTION,
    NO_COLOUR,
    PAIR_OF,
    PAIRS,
    REPEAT,
    REPEATS_BELOW,
    SIDE,
    SUCCESS_SHARE,
    WHICH_CELL,
    WHICH_COLOUR,
    WHICH_DIRECTION,
    WHICH_PAIR,
    CollisionEnv,
    check_arguments,
    draw_start,
    observation_space,
    paint,
)
from .native_vector import Actions, NativeVectorEnv, Outcome

ASKABLE = np.vstack([PAIRS, [NO_COLOUR, NO_COLOUR]])
"""The colours of every pair; the last row, which -1 finds, asks nothing."""

NEVER = -1


class CollisionVectorEnv(NativeVectorEnv):
    """`num_envs` pairs of particles. See `CollisionEnv` for task and arguments, `NativeVectorEnv`
    for the rest.
    """

    metadata: dict[str, Any] = {
        **CollisionEnv.metadata,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    actions_are = "0 (north-west), 1 (north-east), 2 (south-west), 3 (south-east)"

    def __init__(
        self,
        num_envs: int = 1,
        n_questions: int = 200,
        render_mode: str | None = None,
        tile_size: int = TILE_PIXELS,
    ) -> None:
        check_arguments(n_questions)
        check_tile_size(tile_size)
        super().__init__(num_envs, observation_space(), spaces.Discrete(4), render_mode)
        self.n_questions = n_questions
        self.tile_size = tile_size
        B = num_envs
        self._chances = ChanceTable(B, N_CHANCES)
        self._place_B22 = np.zeros((B, 2, 2), np.int64)
        self._colour_B2 = np.zeros((B, 2), np.int64)
        self._direction_B22 = np.zeros((B, 2, 2), np.int64)
        self._touching_B = np.zeros(B, np.bool_)
        self._quarter_BP = np.zeros((B, len(PAIRS)), np.int64)
        self._collision_BP = np.full((B, len(PAIRS)), NEVER)
        self._collisions_B, self._last_pair_B = np.zeros(B, np.int64), np.full(B, NEVER)
        self._asked_B, self._asked_collision_B = np.full(B, NEVER), np.full(B, NEVER)
        self._answer_B = np.full(B, NEVER)
        self._steps_B, self._answers_B = np.zeros(B, np.int64), np.zeros(B, np.int64)
        self._right_answers_B = np.zeros(B, np.int64)

    def _begin_episode(self, i: int, generator: np.random.Generator) -> None:
        start = draw_start(generator)
        self._place_B22[i] = start[:, :2]
        self._colour_B2[i] = start[:, 2]
        self._direction_B22[i] = DIRECTIONS[start[:, 3]]
        self._collision_BP[i] = NEVER
        for never_B in (self._last_pair_B, self._asked_B, self._asked_collision_B, self._answer_B):
            never_B[i] = NEVER
        for count_B in (
            self._steps_B,
            self._answers_B,
            self._right_answers_B,
            self._collisions_B,
        ):
            count_B[i] = 0
        self._collide(np.array([i]))

    def _play(self, action_B: Actions) -> Outcome:
        right_B = self._answer_B == action_B
        self._answers_B += self._asked_B != NEVER
        self._right_answers_B += right_B
        self._chances.refill(self._steps_B, self._generators)
        chance_BX = self._chances.of(self._envs_B, self._steps_B)
        self._steps_B += 1
        self._change(chance_BX)
        self._ask(chance_BX)
        self._collide(self._envs_B)
        success_B = self._right_answers_B >= SUCCESS_SHARE * self.n_questions
        return Outcome(right_B.astype(np.float64), success_B, self._answers_B == self.n_questions)

    def _change(self, chance_BX: NDArray[np.int64]) -> None:
        """New colours and directions by chance; then the particles move, or are scattered."""
        n_colours, n_directions = len(COLOURS), len(DIRECTIONS)
        new_colour_B2 = self._colour_B2 + 1 + chance_BX[:, WHICH_COLOUR] % (n_colours - 1)
        changes_B2 = chance_BX[:, NEW_COLOUR] < CHANGES_BELOW
        self._colour_B2 = np.where(changes_B2, new_colour_B2 % n_colours, self._colour_B2)

        scattered_B1 = self._touching_B[:, None]
        turns_B2 = (chance_BX[:, NEW_DIRECTION] < CHANGES_BELOW) | scattered_B1
        new_direction_B22 = DIRECTIONS[chance_BX[:, WHICH_DIRECTION] % n_directions]
        direction_B22 = np.where(turns_B2[..., None], new_direction_B22, self._direction_B22)

        ahead_B22 = self._place_B22 + direction_B22
        bounces_B22 = ((ahead_B22 < 0) | (ahead_B22 >= SIDE)) & ~scattered_B1[..., None]
        self._direction_B22 = np.where(bounces_B22, -direction_B22, direction_B22)
        cell_B2 = chance_BX[:, WHICH_CELL] % SIDE**2
        scattered_B22 = np.stack([cell_B2 % SIDE, cell_B2 // SIDE], -1)
        moved_B22 = self._place_B22 + self._direction_B22
        self._place_B22 = np.where(scattered_B1[..., None], scattered_B22, moved_B22)

    def _ask(self, chance_BX: NDArray[np.int64]) -> None:
        """The question to be answered next, about the collisions before this step."""
        other_BP = self._collision_BP != NEVER
        other_BP[self._envs_B, self._last_pair_B] = False
        n_others_B = other_BP.sum(1)
        # the pair before which as many are known as the chance says
        place_B = chance_BX[:, WHICH_PAIR] % np.maximum(n_others_B, 1)
        other_B = (other_BP.cumsum(1) > place_B[:, None]).argmax(1)
        pair_B = np.where(chance_BX[:, REPEAT] < REPEATS_BELOW, self._last_pair_B, other_B)
        asks_B = n_others_B > 0
        self._asked_B = np.where(asks_B, pair_B, NEVER)
        self._asked_collision_B = np.where(asks_B, self._collision_BP[self._envs_B, pair_B], NEVER)
        self._answer_B = np.where(asks_B, self._quarter_BP[self._envs_B, pair_B], NEVER)

    def _collide(self, envs: NDArray[np.int64]) -> None:
        """Note where the particles touch, if they do."""
        apart_E2 = np.abs(self._place_B22[envs, 0] - self._place_B22[envs, 1])
        touching_E = apart_E2.max(1) <= 1
        self._touching_B[envs] = touching_E
        if not touching_E.any():
            return
        envs = envs[touching_E]
        pair_E = PAIR_OF[self._colour_B2[envs, 0], self._colour_B2[envs, 1]]
        x_E, y_E = self._place_B22[envs, 0].T
        self._quarter_BP[envs, pair_E] = 2 * (2 * y_E >= SIDE) + (2 * x_E >= SIDE)
        self._collision_BP[envs, pair_E] = self._collisions_B[envs]
        self._collisions_B[envs] += 1
        self._last_pair_B[envs] = pair_E

    def _observe(self, envs: NDArray[np.int64]) -> NDArray[np.uint8]:
        particles_E23 = np.dstack([self._place_B22[envs], self._colour_B2[envs]])
        return np.hstack(
            [
                particles_E23.reshape(len(envs), -1),
                self._touching_B[envs, None],
                ASKABLE[self._asked_B[envs]],
            ]
        ).astype(np.uint8)

    def _marks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        cue_B = np.where(self._touching_B, self._collisions_B - 1, -1)
        return cue_B, self._asked_collision_B

    def _tallies(self) -> dict[str, NDArray[np.int64]]:
        return {"right_answers": self._right_answers_B, "right_answers_of": self._answers_B}

    def _paint(self, i: int) -> NDArray[np.uint8]:
        return paint(self._observe(np.array([i]))[0], self.tile_size)

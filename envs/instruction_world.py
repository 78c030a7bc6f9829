"""The world of Instruction that both its forms share: arguments, spaces, chances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from .bounds import check_finite, check_whole
from .chances import CHANCE_RANGE
from .language import CHARACTERS, ROOMS, SENTENCE_LENGTH, VOCABULARY

Walk = Literal["environment", "agent"]

MIN_CHARACTERS = 4
"""Fewest characters: with fewer, guessing who sent a message pays."""

AWAY = -1
"""The room of a character who is in none."""

N_CHANCES = 6
EVENT, FIRST, SECOND, THIRD, FOURTH, FIFTH = range(N_CHANCES)
"""What the chances of a step decide: what happens, and five choices."""


@dataclass(frozen=True)
class World:
    """The arguments both forms take; `InstructionEnv` explains them.

    Raises: ValueError for arguments out of bounds.
    """

    n_characters: int = 6
    n_rooms: int = 4
    n_instructions: int = 8
    max_open: int = 3
    walk_rate: float = 0.1
    move_rate: float = 0.06
    ask_rate: float = 0.08
    max_steps: int = 1500
    walk: Walk = "environment"
    correct_reward: float = 1.0
    false_reward: float = -0.5
    group_size: int | None = None

    def __post_init__(self) -> None:
        bounds = {
            "n_characters": (MIN_CHARACTERS, len(CHARACTERS)),
            "n_rooms": (2, len(ROOMS)),
            "n_instructions": (1, 1000),
            "max_open": (1, self.n_characters),
            "max_steps": (1, 10**7),
            "group_size": (2, self.n_characters),
        }
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if value is None and name == "group_size":
                continue
            check_whole(**{name: value})
            if not least <= value <= most:
                raise ValueError(f"{name} = {value} is not between {least} and {most}")
        if self.n_characters % self.n_around:
            raise ValueError(
                f"n_characters = {self.n_characters} is not a multiple of group_size = "
                f"{self.group_size}: every group has to be whole"
            )
        check_finite(
            walk_rate=self.walk_rate,
            move_rate=self.move_rate,
            ask_rate=self.ask_rate,
            correct_reward=self.correct_reward,
            false_reward=self.false_reward,
        )
        rates = (self.walk_rate, self.move_rate, self.ask_rate)
        if min(rates) < 0 or sum(rates) > 1 + 1e-9:  # 0.33 + 0.56 + 0.11 is above 1
            raise ValueError(
                f"walk_rate = {self.walk_rate}, move_rate = {self.move_rate} and ask_rate = "
                f"{self.ask_rate} are shares of all steps: none below 0, no more than 1 together"
            )
        if self.walk not in ("environment", "agent"):
            raise ValueError(f"walk = {self.walk!r} is neither 'environment' nor 'agent'")
        if self.correct_reward <= 0 or self.false_reward > 0:
            raise ValueError(
                f"correct_reward = {self.correct_reward} must be above 0 and false_reward = "
                f"{self.false_reward} at most 0"
            )

    @property
    def n_around(self) -> int:
        """Characters that are in the village in an episode."""
        return self.n_characters if self.group_size is None else self.group_size

    def thresholds(self) -> tuple[int, int, int]:
        """Chances below which, in order, the agent is walked, a character moves, one asks."""
        walk_rate = self.walk_rate if self.walk == "environment" else 0.0
        shares = np.cumsum([walk_rate, self.move_rate, self.ask_rate])
        walks, moves, asks = (shares * CHANCE_RANGE).astype(int).tolist()
        return walks, moves, asks

    def action_space(self) -> spaces.MultiDiscrete:
        """Whom to tell, who wants to see them and, if the agent walks, where to go."""
        parts = [self.n_characters + 1, self.n_characters]
        return spaces.MultiDiscrete(parts + [self.n_rooms + 1] * (self.walk == "agent"))

    def optimal_return(self) -> float:
        """All instructions delivered, none falsely."""
        return self.n_instructions * self.correct_reward

    def return_without_memory(self) -> float:
        """Nothing, by silence, where a guess costs more than it earns; else an upper bound."""
        n_others = self.n_around - 1
        guess = self.correct_reward + (n_others - 1) * self.false_reward
        return 0.0 if guess <= 0 else self.optimal_return()


def sentence_space() -> spaces.Box:
    """Numbers of words. Shape (SENTENCE_LENGTH,), uint16."""
    return spaces.Box(0, len(VOCABULARY) - 1, (SENTENCE_LENGTH,), np.uint16)


def draw_start(np_random: np.random.Generator, world: World) -> tuple[NDArray[np.int64], int]:
    """The start of an episode: the rooms, the agent's and then every character's, `AWAY` for those
    who are not in the village; and the first character who is."""
    rooms = np_random.integers(world.n_rooms, size=1 + world.n_characters)
    if world.group_size is None:
        return rooms, 0
    first = world.group_size * int(np_random.integers(world.n_characters // world.group_size))
    rooms[1 : 1 + first] = rooms[1 + first + world.group_size :] = AWAY
    return rooms, first

"""Randomness for worlds that go on by chance: drawn ahead, a chunk of steps at a time.

A single form reads its chunk step by step, a vector form reads those of all its environments at
once. Both draw at the same steps, so the same seed gives the same world.

B environments, N steps of a chunk, X chances per step, E some of the environments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CHUNK = 256
"""Steps for which chances are drawn at once."""

CHANCE_RANGE = 2**16
"""Chances are integers from 0 to this, exclusive: `chance % n` picks one of n, and
`chance < rate * CHANCE_RANGE` happens at that rate."""


def draw_chances(np_random: np.random.Generator, n_chances: int) -> NDArray[np.int64]:
    """Chances for the next CHUNK steps, (CHUNK, n_chances)."""
    return np_random.integers(CHANCE_RANGE, size=(CHUNK, n_chances))


class ChanceTable:
    """The chances of many environments, each drawn from its own generator."""

    def __init__(self, num_envs: int, n_chances: int) -> None:
        self.n_chances = n_chances
        self._chance_BNX = np.zeros((num_envs, CHUNK, n_chances), np.int64)

    def refill(
        self, steps_B: NDArray[np.int64], generators: Sequence[np.random.Generator | None]
    ) -> None:
        """Draw anew where a chunk is used up. `steps`: taken in the episode before this one."""
        for i in np.flatnonzero(steps_B % CHUNK == 0).tolist():
            generator = generators[i]
            assert generator is not None
            self._chance_BNX[i] = draw_chances(generator, self.n_chances)

    def of(self, envs: NDArray[np.int64], steps_E: NDArray[np.int64]) -> NDArray[np.int64]:
        """Chances of the environments `envs`, (E, X), after `steps` steps of their episodes."""
        chance_EX: NDArray[np.int64] = self._chance_BNX[envs, steps_E % CHUNK]
        return chance_EX

"""The scripted policy for Instruction: reads every sentence, notes instructions, passes them on.

B environments, L words of a sentence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .instruction_world import Walk
from .language import CHARACTERS, decode

PATIENCE = 10
"""Steps without news after which an oracle that walks by itself goes to another room."""


class InstructionOracle:
    """Tells every character it meets what it was asked to, and is silent otherwise.

    With `remember=False` it never speaks and earns `RETURN_WITHOUT_MEMORY`: the best without
    memory. With `walk="agent"` it goes to a room at random after `PATIENCE` steps of chatter, of
    which there are `n_rooms`; `seed` is for that.

    Shapes: obs_BL uint16, sentences; starts_B bool, the first step of an episode; actions_B2, or
    B3 with `walk="agent"`, int64.
    """

    def __init__(
        self,
        remember: bool = True,
        seed: int | None = None,
        walk: Walk = "environment",
        n_rooms: int = 3,
    ) -> None:
        self.remember = remember
        self.walk = walk
        self.n_rooms = n_rooms
        self.np_random = np.random.default_rng(seed)
        self._notes: list[dict[str, str]] = []
        self._waited: list[int] = []

    def act(self, obs_BL: NDArray[np.uint16], starts_B: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Choose the next actions."""
        if len(self._notes) != len(obs_BL):
            self._notes = [{} for _ in obs_BL]
            self._waited = [0] * len(obs_BL)
        for i in np.flatnonzero(starts_B):
            self._notes[i] = {}
        return np.array([self._act(i, decode(sentence)) for i, sentence in enumerate(obs_BL)])

    def _act(self, i: int, sentence: str) -> list[int]:
        words, notes = sentence.split(), self._notes[i]
        self._waited[i] += 1
        tell = [0, 0]
        if "can you tell the" in sentence:
            _, whom, *_ = words[words.index("tell") :][1:]
            notes[whom] = words[words.index("wants") - 1]
        elif sentence.endswith(("is here", "comes in")) and words[1] in notes and self.remember:
            tell = [1 + CHARACTERS.index(words[1]), CHARACTERS.index(notes.pop(words[1]))]
        if self.walk == "environment":
            return tell
        if sentence.startswith("you enter") or sentence.endswith(("is here", "comes in")):
            self._waited[i] = 0
        go = 0
        if self._waited[i] > PATIENCE:
            go = 1 + int(self.np_random.integers(self.n_rooms))
        return [*tell, go]

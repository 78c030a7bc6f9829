"""Instruction for many environments at once: the game of `InstructionEnv`, in array arithmetic.

B environments, K characters, E some of the environments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from .chances import ChanceTable
from .instruction import InstructionEnv
from .instruction_world import (
    AWAY,
    EVENT,
    FIFTH,
    FIRST,
    FOURTH,
    N_CHANCES,
    SECOND,
    THIRD,
    World,
    draw_start,
    sentence_space,
)
from .language import (
    CHARACTERS,
    NUMBER,
    QUALITIES,
    ROOMS,
    SENTENCE_LENGTH,
    SLOTS,
    THINGS,
    Kind,
    decode,
    pattern_tables,
)
from .native_vector import Actions, NativeVectorEnv, Outcome

Indices = NDArray[np.int64]

CHARACTER_NUMBERS, ROOM_NUMBERS, THING_NUMBERS, QUALITY_NUMBERS = (
    np.array([NUMBER[word] for word in words]) for words in (CHARACTERS, ROOMS, THINGS, QUALITIES)
)

NOBODY = -1


class InstructionVectorEnv(NativeVectorEnv):
    """`num_envs` villages. See `InstructionEnv` for task and arguments, `NativeVectorEnv` for the
    rest.

    Every step sorts the environments by what happens in them and treats each group at once.
    """

    metadata: dict[str, Any] = {
        **InstructionEnv.metadata,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    actions_are = "those of its action_space: whom to tell, who wants to see them, where to go"

    def __init__(self, num_envs: int = 1, render_mode: str | None = None, **arguments: Any) -> None:
        self.world = World(**arguments)
        super().__init__(num_envs, sentence_space(), self.world.action_space(), render_mode)
        self._patterns, self._places = pattern_tables()
        self._walk_below, self._move_below, self._ask_below = self.world.thresholds()
        B, K = num_envs, self.world.n_characters
        self._characters_K = np.arange(K)
        self._chances = ChanceTable(B, N_CHANCES)
        self._room_B = np.zeros(B, np.int64)
        self._first_around_B = np.zeros(B, np.int64)
        self._room_of_BK = np.zeros((B, K), np.int64)
        self._unseen_BK = np.zeros((B, K), np.bool_)
        # the open instruction for each character: who wants to see them, or NOBODY
        self._who_BK = np.full((B, K), NOBODY)
        self._number_BK, self._since_BK = np.zeros((B, K), np.int64), np.zeros((B, K), np.int64)
        self._met_BK = np.zeros((B, K), np.bool_)
        self._steps_B, self._asked_B = np.zeros(B, np.int64), np.zeros(B, np.int64)
        self._delivered_B, self._false_B = np.zeros(B, np.int64), np.zeros(B, np.int64)
        self._due_B, self._decisions_B = np.zeros(B, np.int64), np.zeros(B, np.int64)
        self._steps_open_B = np.zeros(B, np.int64)
        self._cue_B, self._decision_B = np.full(B, -1), np.full(B, -1)
        self._kind_B = np.zeros(B, np.int64)
        self._words_BW = np.zeros((B, SLOTS), np.int64)

    # --------------------------------------------------------------------- what the base asks for

    def _begin_episode(self, i: int, generator: np.random.Generator) -> None:
        (room, *self._room_of_BK[i]), self._first_around_B[i] = draw_start(generator, self.world)
        self._who_BK[i] = NOBODY
        for count_B in (
            self._steps_B,
            self._asked_B,
            self._delivered_B,
            self._false_B,
            self._due_B,
            self._decisions_B,
            self._steps_open_B,
        ):
            count_B[i] = 0
        self._cue_B[i] = self._decision_B[i] = -1
        self._enter(np.array([i]), np.array([room]))

    def _play(self, action_B: Actions) -> Outcome:
        self._chances.refill(self._steps_B, self._generators)
        self._steps_B += 1
        self._cue_B, self._decision_B = np.full(self.num_envs, -1), np.full(self.num_envs, -1)
        reward_B = np.zeros(self.num_envs)

        tells_B = action_B[:, 0] > 0
        goes_B = ~tells_B & (action_B[:, 2] > 0) if self.world.walk == "agent" else None
        waits_B = ~tells_B if goes_B is None else ~tells_B & ~goes_B
        shows_B = waits_B & self._unseen_BK.any(1)
        if len(envs := np.flatnonzero(tells_B)):
            reward_B[envs] = self._tell(envs, action_B[envs, 0] - 1, action_B[envs, 1])
        if goes_B is not None and len(envs := np.flatnonzero(goes_B)):
            self._enter(envs, action_B[envs, 2] - 1)
        if len(envs := np.flatnonzero(shows_B)):
            character_E = self._unseen_BK[envs].argmax(1)
            self._unseen_BK[envs, character_E] = False
            self._meet(envs, Kind.HERE, character_E)
        if len(envs := np.flatnonzero(waits_B & ~shows_B)):
            self._happen(envs)

        all_B = self._delivered_B == self.world.n_instructions
        ended_B = all_B | (self._steps_B == self.world.max_steps)
        return Outcome(reward_B, all_B & (self._false_B == 0), ended_B)

    def _observe(self, envs: Indices) -> NDArray[np.uint16]:
        kind_E = self._kind_B[envs]
        sentence_EL = self._patterns[kind_E]
        sentence_EL[np.arange(len(envs))[:, None], self._places[kind_E]] = self._words_BW[envs]
        return sentence_EL[:, :SENTENCE_LENGTH].copy()

    def _marks(self) -> tuple[Indices, Indices]:
        return self._cue_B, self._decision_B

    def _tallies(self) -> dict[str, Indices]:
        return {
            "delivered": self._delivered_B,
            "delivered_of": self._due_B,
            "false_deliveries": self._false_B,
            "false_deliveries_of": self._decisions_B,
            "steps_open": self._steps_open_B,
            "steps_open_of": self._delivered_B,
        }

    def _paint(self, i: int) -> str:
        return decode(self._observe(np.array([i]))[0])

    # ------------------------------------------------------------------------------ what happens

    def _happen(self, envs: Indices) -> None:
        """One step of the world, by chance."""
        chance_EX = self._chances.of(envs, self._steps_B[envs] - 1)
        event_E = chance_EX[:, EVENT]
        walks_E = event_E < self._walk_below
        moves_E = ~walks_E & (event_E < self._move_below)
        asks_E = (event_E >= self._move_below) & (event_E < self._ask_below)
        silent_E = ~walks_E
        if walks_E.any():
            walking = envs[walks_E]
            rooms = self._another_room(self._room_B[walking], chance_EX[walks_E, FIRST])
            self._enter(walking, rooms)
        for happens_E, act in ((moves_E, self._move), (asks_E, self._ask)):
            if happens_E.any():
                silent_E[happens_E] = ~act(envs[happens_E], chance_EX[happens_E])
        if silent_E.any():
            self._chat(envs[silent_E], chance_EX[silent_E])

    def _enter(self, envs: Indices, rooms: Indices) -> None:
        """The agent goes to a room; who is in it shows in the steps to come."""
        self._room_B[envs] = rooms
        self._unseen_BK[envs] = self._room_of_BK[envs] == rooms[:, None]
        self._say(envs, Kind.ENTER, ROOM_NUMBERS[rooms])

    def _meet(self, envs: Indices, kind: Kind, character_E: Indices) -> None:
        """A character shows or comes in: the time to tell what is open for them."""
        self._say(envs, kind, CHARACTER_NUMBERS[character_E])
        open_E = self._who_BK[envs, character_E] != NOBODY
        self._decision_B[envs] = np.where(open_E, self._number_BK[envs, character_E], -1)
        self._decisions_B[envs] += open_E
        self._count_met(envs[open_E], character_E[open_E])

    def _move(self, envs: Indices, chance_EX: Indices) -> NDArray[np.bool_]:
        """A character goes to another room. Where the agent can see it."""
        character_E = self._somebody(envs, chance_EX[:, FIRST])
        origin_E = self._room_of_BK[envs, character_E]
        target_E = self._another_room(origin_E, chance_EX[:, SECOND])
        self._room_of_BK[envs, character_E] = target_E
        leaves_E: NDArray[np.bool_] = origin_E == self._room_B[envs]
        comes_E: NDArray[np.bool_] = target_E == self._room_B[envs]
        self._say(envs[leaves_E], Kind.LEAVES, CHARACTER_NUMBERS[character_E[leaves_E]])
        self._meet(envs[comes_E], Kind.COMES, character_E[comes_E])
        return leaves_E | comes_E

    def _ask(self, envs: Indices, chance_EX: Indices) -> NDArray[np.bool_]:
        """Somebody here gives an instruction for somebody who is not, where that is possible."""
        here_EK = self._present(envs)
        open_EK = self._who_BK[envs] != NOBODY
        eligible_EK = ~here_EK & ~open_EK & (self._room_of_BK[envs] != AWAY)
        can_E: NDArray[np.bool_] = (
            (open_EK.sum(1) < self.world.max_open)
            & (self._asked_B[envs] < self.world.n_instructions)
            & here_EK.any(1)
            & eligible_EK.any(1)
        )
        envs, chance_EX = envs[can_E], chance_EX[can_E]
        speaker_E = self._next_from(here_EK[can_E], chance_EX[:, FIRST])
        whom_E = self._next_from(eligible_EK[can_E], chance_EX[:, SECOND])
        who_E = self._other(envs, whom_E, chance_EX[:, THIRD])
        self._who_BK[envs, whom_E] = who_E
        self._number_BK[envs, whom_E] = self._cue_B[envs] = self._asked_B[envs]
        self._since_BK[envs, whom_E] = self._steps_B[envs]
        self._met_BK[envs, whom_E] = False
        self._asked_B[envs] += 1
        self._say(envs, Kind.ASK, *(CHARACTER_NUMBERS[k] for k in (speaker_E, whom_E, who_E)))
        return can_E

    def _chat(self, envs: Indices, chance_EX: Indices) -> None:
        """Somebody says something that does not matter, or nobody is here to."""
        here_EK = self._present(envs)
        thing_E = THING_NUMBERS[chance_EX[:, SECOND] % len(THINGS)]
        quality_E = QUALITY_NUMBERS[chance_EX[:, THIRD] % len(QUALITIES)]
        speaker_E = CHARACTER_NUMBERS[self._next_from(here_EK, chance_EX[:, FIRST])]
        subject_E = self._somebody(envs, chance_EX[:, SECOND])
        other_E = CHARACTER_NUMBERS[self._other(envs, subject_E, chance_EX[:, THIRD])]
        room_E = ROOM_NUMBERS[chance_EX[:, FOURTH] % self.world.n_rooms]
        subject_E = CHARACTER_NUMBERS[subject_E]

        quiet_E = ~here_EK.any(1)
        remark_E = ~quiet_E & (chance_EX[:, FIFTH] % 2 == 1)
        for says_E, kind, words in (
            (quiet_E, Kind.QUIET, (thing_E, quality_E)),
            (remark_E, Kind.REMARK, (speaker_E, thing_E, quality_E)),
            (~quiet_E & ~remark_E, Kind.GOSSIP, (speaker_E, subject_E, other_E, room_E)),
        ):
            self._say(envs[says_E], kind, *(word_E[says_E] for word_E in words))

    def _tell(self, envs: Indices, whom_E: Indices, who_E: Indices) -> NDArray[np.float64]:
        """The agent tells `whom` that `who` wants to see them. Returns the rewards."""
        here_E = self._room_of_BK[envs, whom_E] == self._room_B[envs]
        right_E = here_E & (self._who_BK[envs, whom_E] == who_E)
        served, character_R = envs[right_E], whom_E[right_E]
        self._count_met(served, character_R)
        self._delivered_B[served] += 1
        self._steps_open_B[served] += self._steps_B[served] - self._since_BK[served, character_R]
        self._who_BK[served, character_R] = NOBODY
        self._false_B[envs] += ~right_E
        for says_E, kind in (
            (right_E, Kind.THANKS),
            (here_E & ~right_E, Kind.REFUSES),
            (~here_E, Kind.NOT_HERE),
        ):
            self._say(envs[says_E], kind, CHARACTER_NUMBERS[whom_E[says_E]])
        return np.where(right_E, self.world.correct_reward, self.world.false_reward)

    def _count_met(self, envs: Indices, character_E: Indices) -> None:
        self._due_B[envs] += ~self._met_BK[envs, character_E]
        self._met_BK[envs, character_E] = True

    def _say(self, envs: Indices, kind: Kind, *words: Indices) -> None:
        self._kind_B[envs] = kind
        for slot, word_E in enumerate(words):
            self._words_BW[envs, slot] = word_E
        self._words_BW[envs, len(words) :] = 0

    # ----------------------------------------------------------------------------------- choices

    def _present(self, envs: Indices) -> NDArray[np.bool_]:
        present_EK: NDArray[np.bool_] = self._room_of_BK[envs] == self._room_B[envs, None]
        return present_EK

    def _another_room(self, room_E: Indices, chance_E: Indices) -> Indices:
        return (room_E + 1 + chance_E % (self.world.n_rooms - 1)) % self.world.n_rooms

    def _somebody(self, envs: Indices, chance_E: Indices) -> Indices:
        return self._first_around_B[envs] + chance_E % self.world.n_around

    def _other(self, envs: Indices, character_E: Indices, chance_E: Indices) -> Indices:
        n, first_E = self.world.n_around, self._first_around_B[envs]
        return first_E + (character_E - first_E + 1 + chance_E % (n - 1)) % n

    def _next_from(self, mask_EK: NDArray[np.bool_], chance_E: Indices) -> Indices:
        """The first of the characters in `mask` from a random place on, by their numbers."""
        n = self.world.n_characters
        behind_EK = (self._characters_K - chance_E[:, None]) % n
        first_E: Indices = np.where(mask_EK, behind_EK, n).argmin(1)
        return first_E

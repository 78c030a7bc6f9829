"""Instruction: pass messages on, much later, to the right person, amid chatter.

The single form. `instruction_world` has what both forms share, `instruction_vector` the vector
form.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from .bounds import check_render_mode
from .chances import CHUNK, draw_chances
from .instruction_world import (
    EVENT,
    FIRST,
    N_CHANCES,
    SECOND,
    THIRD,
    World,
    draw_start,
    sentence_space,
)
from .language import CHARACTERS, QUALITIES, ROOMS, THINGS, Kind, compose, encode


class InstructionEnv(gym.Env[NDArray[Any], NDArray[np.int64]]):
    """
    ## Description

    The agent is led through the rooms of a village, where characters come and go. Every step brings
    one sentence: where it is, who is here, who comes in or leaves, what somebody says. Now and then
    somebody says "can you tell the miller that the smith wants to see them ?". When the agent meets
    the miller, perhaps much later and somewhere else, it has to tell the miller just that. Several
    such instructions can be open at once, at most one for each character. All else is chatter, some
    of it with the same names.

    Rebuilt from the description of the instruction task in Sukhbaatar et al. 2021
    (arXiv:2105.06548), with a world of its own; of its sentences only the instruction is theirs.

    ## Action space

    `MultiDiscrete`: whom to tell (0 nobody, k the character k - 1), and which character wants to
    see them. With `walk="agent"` a third part: where to go (0 nowhere, k room k - 1). Telling comes
    before going; either takes the step, during which nothing else happens in the world.

    ## Observation space

    One sentence, as the numbers of its words, padded with 0: shape (16,), `uint16`. `VOCABULARY`
    has the words by number, `decode` reads a sentence (both in `expire_span.envs.language`).

    ## Rewards

    `correct_reward` (+1) for telling X, who is in the room, what an open instruction says;
    `false_reward` (-0.5) for telling anything else.

    - `OPTIMAL_RETURN`, undiscounted: n_instructions * correct_reward.
    - `RETURN_WITHOUT_MEMORY`, the best possible: 0, by silence. A guess is right for one of the
      others in the village at most. (Where the rewards make guessing pay: an upper bound.)

    ## Termination

    When all `n_instructions` have been delivered or, as a loss, after `max_steps`: never truncated.

    ## Info

    - `memory`, in every step and at reset: `cue` is k at the sentence that gives instruction k,
      `decision` is k at the sentence that shows or brings in the character it is for, while it is
      open; otherwise -1.
    - At the end of an episode only: `is_success` (bool), whether all instructions were delivered
      and nothing was told falsely, and `tallies`: `delivered` of those instructions whose character
      was met (`delivered_of`), `false_deliveries` to be divided by the decisions
      (`false_deliveries_of`), `steps_open`, steps from instruction to delivery, summed over
      those delivered (`steps_open_of`).

    ## Arguments

    - `n_characters`, 4 to 24, and `n_rooms`, 2 to 24. All rooms are next to each other.
    - `group_size`: characters come in groups of so many, 2 at least, of which one is in the
      village in an episode, drawn at random; None: all are.
    - `n_instructions`: in an episode; `max_open`: of these open at once.
    - `walk_rate`, `move_rate`, `ask_rate`: shares of the steps, those spent on telling and on
      showing who is here aside, in which the agent is led to another room, a character goes
      somewhere, and somebody gives an instruction if anyone can; the rest is chatter.
    - `max_steps`: after which an episode is lost.
    - `walk`: "environment" leads the agent; with "agent" it walks by its own actions.
    - `correct_reward`, `false_reward`.
    - `render_mode`: "ansi" (the sentence) or None.

    Raises: ValueError for arguments out of bounds, and for actions that do not exist.

    ## Registered ids

    Steps between instruction and delivery, share of sentences that are distraction, measured over
    episodes of the oracle:

    - `ExpireSpan/Instruction-v0`, `ExpireSpan/Instruction-short-v0`: a few dozen
    - `ExpireSpan/Instruction-long-v0`: hundreds
    - `ExpireSpan/Instruction-heavy-v0`: thousands, more than 95 % distraction
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}

    def __init__(self, render_mode: str | None = None, **arguments: Any) -> None:
        check_render_mode(render_mode, "ansi")
        self.render_mode = render_mode
        self.world = World(**arguments)
        self.walk_below, self.move_below, self.ask_below = self.world.thresholds()
        self.OPTIMAL_RETURN = self.world.optimal_return()
        self.RETURN_WITHOUT_MEMORY = self.world.return_without_memory()
        self.observation_space = sentence_space()
        self.action_space = self.world.action_space()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint16], dict[str, Any]]:
        """Start an episode. `options` are not used."""
        super().reset(seed=seed)
        (room, *rooms), self.first_around = draw_start(self.np_random, self.world)
        self.room_of: list[int] = [int(room_of) for room_of in rooms]
        self.steps = self.asked = 0
        self.open: dict[int, dict[str, Any]] = {}
        self.tallies = {
            f"{name}{part}": 0
            for name in ("delivered", "false_deliveries", "steps_open")
            for part in ("", "_of")
        }
        self._enter(int(room))
        return encode(self.sentence), {"memory": {"cue": -1, "decision": -1}}

    def step(
        self, action: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint16], float, bool, bool, dict[str, Any]]:
        """Say something or nothing, and hear the next sentence; see the class."""
        action = np.asarray(action)
        if action.dtype == np.bool_ or not self.action_space.contains(action):
            raise ValueError(f"action = {action} is not in {self.action_space}")
        whom, who, go = [*action.tolist(), 0][:3]
        if self.steps % CHUNK == 0:
            self.chances = draw_chances(self.np_random, N_CHANCES)
        self.chance = self.chances[self.steps % CHUNK].tolist()
        self.steps += 1
        self.cue = self.decision = -1
        reward = 0.0
        if whom:
            reward = self._tell(whom - 1, who)
        elif go:
            self._enter(go - 1)
        elif self.unseen:
            self._meet(Kind.HERE, self.unseen.pop(0))
        else:
            self._happen()
        delivered_all = self.tallies["delivered"] == self.world.n_instructions
        over = delivered_all or self.steps == self.world.max_steps
        info: dict[str, Any] = {"memory": {"cue": self.cue, "decision": self.decision}}
        if over:
            info["is_success"] = delivered_all and not self.tallies["false_deliveries"]
            info["tallies"] = dict(self.tallies)
        return encode(self.sentence), reward, over, False, info

    def render(self) -> str | None:
        """The last sentence, or None without a render mode."""
        return self.sentence if self.render_mode else None

    # ------------------------------------------------------------------------------ what happens

    def _happen(self) -> None:
        """One step of the world, by chance."""
        event = self.chance[EVENT]
        if event < self.walk_below:
            self._enter(self._another_room(self.room, self.chance[FIRST]))
        elif event < self.move_below and self._move():
            pass
        elif self.move_below <= event < self.ask_below and self._ask():
            pass
        else:
            self._chat()

    def _enter(self, room: int) -> None:
        """The agent goes to a room; who is in it shows in the steps to come."""
        self.room = room
        self.unseen = self._present()
        self.sentence = compose(Kind.ENTER, ROOMS[room])

    def _meet(self, kind: Kind, character: int) -> None:
        """A character shows or comes in: the time to tell what is open for them."""
        self.sentence = compose(kind, CHARACTERS[character])
        if character in self.open:
            self.decision = self.open[character]["number"]
            self.tallies["false_deliveries_of"] += 1
            self._count_met(character)

    def _move(self) -> bool:
        """A character goes to another room. Whether the agent can see it."""
        character = self._somebody(self.chance[FIRST])
        origin = self.room_of[character]
        target = self._another_room(origin, self.chance[SECOND])
        self.room_of[character] = target
        if origin == self.room:
            self.sentence = compose(Kind.LEAVES, CHARACTERS[character])
        elif target == self.room:
            self._meet(Kind.COMES, character)
        return self.room in (origin, target)

    def _ask(self) -> bool:
        """Somebody here gives an instruction for somebody who is not, if that is possible."""
        here = self._present()
        eligible = [
            character
            for character in range(self.first_around, self.first_around + self.world.n_around)
            if character not in here and character not in self.open
        ]
        full = len(self.open) == self.world.max_open or self.asked == self.world.n_instructions
        if full or not here or not eligible:
            return False
        speaker = self._next_from(here, self.chance[FIRST])
        whom = self._next_from(eligible, self.chance[SECOND])
        who = self._other(whom, self.chance[THIRD])
        self.open[whom] = {"who": who, "number": self.asked, "since": self.steps, "met": False}
        self.cue = self.asked
        self.asked += 1
        self.sentence = compose(Kind.ASK, *(CHARACTERS[k] for k in (speaker, whom, who)))
        return True

    def _chat(self) -> None:
        """Somebody says something that does not matter, or nobody is here to."""
        _, first, second, third, fourth, fifth = self.chance
        here = self._present()
        thing, quality = THINGS[second % len(THINGS)], QUALITIES[third % len(QUALITIES)]
        if not here:
            self.sentence = compose(Kind.QUIET, thing, quality)
            return
        speaker = CHARACTERS[self._next_from(here, first)]
        if fifth % 2:
            self.sentence = compose(Kind.REMARK, speaker, thing, quality)
            return
        subject = self._somebody(second)
        other = self._other(subject, third)
        room = ROOMS[fourth % self.world.n_rooms]
        self.sentence = compose(Kind.GOSSIP, speaker, CHARACTERS[subject], CHARACTERS[other], room)

    def _tell(self, whom: int, who: int) -> float:
        """The agent tells `whom` that `who` wants to see them. Returns the reward."""
        here = self.room_of[whom] == self.room
        if here and whom in self.open and self.open[whom]["who"] == who:
            self._count_met(whom)
            self.tallies["delivered"] += 1
            self.tallies["steps_open"] += self.steps - self.open.pop(whom)["since"]
            self.tallies["steps_open_of"] += 1
            self.sentence = compose(Kind.THANKS, CHARACTERS[whom])
            return self.world.correct_reward
        self.tallies["false_deliveries"] += 1
        self.sentence = compose(Kind.REFUSES if here else Kind.NOT_HERE, CHARACTERS[whom])
        return self.world.false_reward

    def _count_met(self, character: int) -> None:
        self.tallies["delivered_of"] += not self.open[character]["met"]
        self.open[character]["met"] = True

    # ----------------------------------------------------------------------------------- choices

    def _present(self) -> list[int]:
        return [k for k, room in enumerate(self.room_of) if room == self.room]

    def _another_room(self, room: int, chance: int) -> int:
        return (room + 1 + chance % (self.world.n_rooms - 1)) % self.world.n_rooms

    def _somebody(self, chance: int) -> int:
        return self.first_around + chance % self.world.n_around

    def _other(self, character: int, chance: int) -> int:
        n = self.world.n_around
        return self.first_around + (character - self.first_around + 1 + chance % (n - 1)) % n

    def _next_from(self, characters: list[int], chance: int) -> int:
        """The first of `characters` from a random place on, in the order of their numbers."""
        n = self.world.n_characters
        return min(characters, key=lambda k: (k - chance) % n)

"""What is particular to Instruction: its world, its rewards, its language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from expire_span.agents import MemoryPPO, make_vec_env
from expire_span.agents.extractors import SentenceEncoder
from expire_span.envs.instruction import InstructionEnv
from expire_span.envs.instruction_oracle import InstructionOracle
from expire_span.envs.instruction_vector import InstructionVectorEnv
from expire_span.envs.instruction_world import AWAY
from expire_span.envs.language import (
    CHARACTERS,
    PATTERNS,
    SENTENCE_LENGTH,
    SLOTS,
    VOCABULARY,
    Kind,
    compose,
    decode,
    encode,
)

SILENCE = np.array([0, 0])


def until_decision(env: InstructionEnv) -> tuple[int, int]:
    """Wait for a character an open instruction is for. Returns it, and who wants to see them."""
    for _ in range(10_000):
        *_, info = env.step(SILENCE)
        if info["memory"]["decision"] >= 0:
            whom = CHARACTERS.index(env.sentence.split()[1])
            return whom, env.open[whom]["who"]
    raise AssertionError("nobody was met")


def test_right_message_to_one_who_is_here_pays_and_is_thanked_for() -> None:
    env = InstructionEnv()
    env.reset(seed=0)
    whom, who = until_decision(env)
    _, reward, *_ = env.step(np.array([1 + whom, who]))
    assert reward == 1.0 and env.sentence == compose(Kind.THANKS, CHARACTERS[whom])
    # told again it is false: there is nothing open any more
    _, reward, *_ = env.step(np.array([1 + whom, who]))
    assert reward == -0.5 and env.sentence == compose(Kind.REFUSES, CHARACTERS[whom])


def test_whatever_else_is_told_costs_and_changes_nothing() -> None:
    env = InstructionEnv(correct_reward=2.0, false_reward=-1.0)
    env.reset(seed=1)
    whom, who = until_decision(env)
    rooms, asked = list(env.room_of), dict(env.open)
    _, reward, *_ = env.step(np.array([1 + whom, (who + 1) % 6]))
    assert reward == -1.0 and env.sentence == compose(Kind.REFUSES, CHARACTERS[whom])
    absent = next(k for k, room in enumerate(env.room_of) if room != env.room)
    _, reward, *_ = env.step(np.array([1 + absent, who]))
    assert reward == -1.0 and env.sentence == compose(Kind.NOT_HERE, CHARACTERS[absent])
    assert env.room_of == rooms and env.open == asked
    _, reward, *_ = env.step(np.array([1 + whom, who]))
    assert reward == 2.0


def test_of_groups_one_is_in_the_village() -> None:
    env = InstructionEnv(n_characters=8, group_size=4, ask_rate=0.3)
    groups = set()
    for seed in range(8):
        env.reset(seed=seed)
        around = [k for k, room in enumerate(env.room_of) if room != AWAY]
        groups.add(tuple(around))
        names = {CHARACTERS[k] for k in set(range(8)) - set(around)}
        for _ in range(100):
            env.step(SILENCE)
            assert not names & set(env.sentence.split())
    assert groups == {(0, 1, 2, 3), (4, 5, 6, 7)}


def test_at_most_one_instruction_per_character_and_max_open_in_all() -> None:
    env = InstructionEnv(n_instructions=50, max_open=3, ask_rate=0.5)
    env.reset(seed=2)
    most = 0
    for _ in range(1000):
        *_, info = env.step(SILENCE)
        most = max(most, len(env.open))
        if info["memory"]["cue"] >= 0:
            words = env.sentence.split()
            whom, who = words[words.index("tell") + 2], words[words.index("that") + 2]
            assert env.open[CHARACTERS.index(whom)]["who"] == CHARACTERS.index(who) and whom != who
            assert env.room_of[CHARACTERS.index(whom)] != env.room
    assert most == 3


def test_tallies_and_success_say_how_an_episode_went() -> None:
    env = InstructionEnv(n_instructions=2)
    for wrong in (False, True):
        env.reset(seed=3)
        over = False
        if wrong:
            env.step(np.array([1, 2]))
        while not over:
            whom, who = until_decision(env)
            *_, over, _, info = env.step(np.array([1 + whom, who]))
        assert info["is_success"] is not wrong
        tallies = info["tallies"]
        assert tallies["delivered"] == tallies["delivered_of"] == tallies["steps_open_of"] == 2
        assert tallies["false_deliveries"] == int(wrong) and tallies["false_deliveries_of"] >= 2
        assert tallies["steps_open"] > 0


def test_agent_walks_by_itself_if_it_is_to() -> None:
    env = InstructionEnv(walk="agent", n_rooms=3, move_rate=0.0)
    env.reset(seed=0)
    for room in (2, 0, 0, 1):
        env.step(np.array([0, 0, 1 + room]))
        assert env.room == room and env.sentence.startswith("you enter")
        here = [k for k, r in enumerate(env.room_of) if r == room]
        for character in here:
            env.step(np.array([0, 0, 0]))
            assert env.sentence == compose(Kind.HERE, CHARACTERS[character])
    for _ in range(200):
        env.step(np.array([0, 0, 0]))
        assert env.room == 1


@pytest.mark.parametrize(
    ("variant", "least", "most", "distraction"),
    [("short", 20, 60, 0.85), ("long", 100, 500, 0.95), ("heavy", 1000, 5000, 0.95)],
)
def test_variants_are_as_long_as_they_say(
    variant: str, least: int, most: int, distraction: float
) -> None:
    env = make_vec_env(f"expire_span.envs:ExpireSpan/Instruction-{variant}-v0", 32, seed=0)
    oracle, obs = InstructionOracle(), env.reset()
    assert isinstance(obs, np.ndarray)
    starts = np.ones(32, np.bool_)
    opened = delivered = marked = steps = 0
    while delivered < 200:
        obs, _, starts, infos = env.step(oracle.act(obs, starts))
        assert isinstance(obs, np.ndarray)
        marked += sum(max(info["memory"].values()) >= 0 for info in infos)
        steps += 32
        for info in infos:
            opened += info.get("tallies", {}).get("steps_open", 0)
            delivered += info.get("tallies", {}).get("steps_open_of", 0)
    assert least < opened / delivered < most
    assert 1 - marked / steps > distraction


@pytest.mark.parametrize("kind", Kind)
def test_sentences_survive_being_numbers(kind: Kind) -> None:
    sentence = compose(kind, *["miller", "old", "baker", "mill"][: PATTERNS[kind].count("{}")])
    assert decode(encode(sentence)) == sentence
    assert PATTERNS[kind].count("{}") <= SLOTS and len(sentence.split()) <= SENTENCE_LENGTH


def test_words_are_numbered_once_and_padding_is_zero() -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY) and VOCABULARY[0] == ""
    with pytest.raises(ValueError, match="unknown words dragon"):
        encode("the dragon leaves")


@pytest.mark.parametrize("make", [InstructionEnv, InstructionVectorEnv])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_characters": 3}, "n_characters = 3 is not between 4 and 24"),
        ({"n_rooms": 1}, "n_rooms = 1 is not between 2 and 24"),
        ({"max_open": 7}, "max_open = 7 is not between 1 and 6"),
        ({"walk_rate": 0.9}, "walk_rate = 0.9, move_rate = .* no more than 1 together"),
        ({"walk": "run"}, "walk = 'run' is neither 'environment' nor 'agent'"),
        ({"n_characters": 8, "group_size": 9}, "group_size = 9 is not between 2 and 8"),
        ({"n_characters": 8, "group_size": 3}, "n_characters = 8 is not a multiple of group_size"),
        ({"false_reward": 0.5}, "false_reward = 0.5 at most 0"),
        ({"render_mode": "human"}, "render_mode = 'human' is neither None nor 'ansi'"),
    ],
)
def test_invalid_arguments_are_named(
    make: Callable[..., Any], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_sentences_are_read_by_an_encoder_that_tells_who_from_whom() -> None:
    model = MemoryPPO(
        "MlpPolicy", "expire_span.envs:ExpireSpan/Instruction-v0", n_envs=2, n_steps=8, seed=0
    )
    encoder = model.policy.features_extractor.encoders[0]  # type: ignore[index]
    assert isinstance(encoder, SentenceEncoder)
    model.learn(32)
    one = compose(Kind.ASK, "baker", "miller", "smith")
    other = compose(Kind.ASK, "baker", "smith", "miller")
    read = model.policy.extract_features(
        model.policy.obs_to_tensor(np.stack([encode(one), encode(other)]))[0]
    )
    assert isinstance(read, Tensor)
    assert not np.allclose(*read.detach().numpy())


def test_many_sentences_are_read_as_a_few_are() -> None:
    """Many are read from a table. The words' gradients are the same, and padding has none."""
    space = gym.make("expire_span.envs:ExpireSpan/Instruction-v0").observation_space
    assert isinstance(space, spaces.Box)
    torch.manual_seed(0)
    encoder = SentenceEncoder(space, 8)
    sentences = torch.randint(0, encoder.n_words, (1024, *space.shape))
    encoder.adapt(sentences)

    def read(size: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        out = torch.cat([encoder(sentences[i : i + size]) for i in range(0, 1024, size)])
        return out, torch.autograd.grad(out.square().mean(), list(encoder.parameters()))

    (few, few_grads), (many, many_grads) = read(8), read(1024)
    torch.testing.assert_close(few, many)
    torch.testing.assert_close(few_grads, many_grads)
    padding_grads = [grads[1][0] for grads in (few_grads, many_grads)]
    assert [name for name, _ in encoder.named_parameters()][1] == "words.weight"
    assert not torch.stack(padding_grads).any()


def test_steps_open_are_those_from_instruction_to_delivery() -> None:
    env = InstructionEnv(n_instructions=1)
    env.reset(seed=3)
    asked = step = 0
    over = False
    while not over:
        action = np.array([0, 0])
        for whom, said in env.open.items():
            if env.room_of[whom] == env.room and step > asked:
                action = np.array([1 + whom, said["who"]])
        *_, over, _, info = env.step(action)
        step += 1
        asked = step if info["memory"]["cue"] == 0 else asked
    assert asked > 0
    assert info["tallies"]["steps_open"] == step - asked

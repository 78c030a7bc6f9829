"""The language of the instruction world: its words, its sentences, and how they become numbers.

A sentence is a kind with a few words filled in; as an observation it is the numbers of its words,
in order, padded with 0 to `SENTENCE_LENGTH`.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHARACTERS = tuple(
    "baker smith miller weaver fisher shepherd potter mason tailor cooper tanner brewer carpenter "
    "healer scribe hunter gardener ferryman glazier innkeeper saddler chandler thatcher porter"
    "".split()
)
ROOMS = tuple(
    "mill forge bakery harbour chapel market cellar tower stable orchard library kitchen workshop "
    "bridge well garden barn inn quarry meadow attic courtyard bathhouse lighthouse".split()
)
THINGS = tuple(
    "wind bread roof soup road lamp river clock candle cart gate fire wool rain moon cheese".split()
)
QUALITIES = tuple(
    "cold old broken bright late quiet strange dear heavy sour wet slow fine crooked new gone"
    "".split()
)


class Kind(IntEnum):
    """What a sentence says. `PATTERNS` has the words."""

    ENTER = 0
    HERE = 1
    COMES = 2
    LEAVES = 3
    ASK = 4
    THANKS = 5
    REFUSES = 6
    NOT_HERE = 7
    REMARK = 8
    GOSSIP = 9
    QUIET = 10


PATTERNS: dict[Kind, str] = {
    Kind.ENTER: "you enter the {}",
    Kind.HERE: "the {} is here",
    Kind.COMES: "the {} comes in",
    Kind.LEAVES: "the {} leaves",
    Kind.ASK: "the {} says can you tell the {} that the {} wants to see them ?",
    Kind.THANKS: "the {} thanks you",
    Kind.REFUSES: "the {} shakes their head",
    Kind.NOT_HERE: "nobody answers for the {}",
    Kind.REMARK: "the {} says the {} is {}",
    Kind.GOSSIP: "the {} says the {} wants to see the {} in the {}",
    Kind.QUIET: "the {} is {}",
}
"""Every sentence; the words in braces are filled in."""

SLOTS = 4
"""Most words to be filled into a sentence."""

_FIXED = sorted({word for text in PATTERNS.values() for word in text.split()} - {"{}"})

VOCABULARY: tuple[str, ...] = ("", *_FIXED, *CHARACTERS, *ROOMS, *THINGS, *QUALITIES)
"""Every word by its number; number 0 is the padding."""

NUMBER: dict[str, int] = {word: number for number, word in enumerate(VOCABULARY)}
"""The number of every word."""

SENTENCE_LENGTH = max(len(text.split()) for text in PATTERNS.values())
"""Words of the longest sentence: 16."""


def encode(sentence: str) -> NDArray[np.uint16]:
    """The numbers of a sentence's words, padded. Shape (SENTENCE_LENGTH,).

    Raises ValueError for a word that is not in `VOCABULARY` and for sentences that are too long.
    """
    words = sentence.split()
    unknown = [word for word in words if word not in NUMBER]
    if unknown:
        raise ValueError(f"unknown words {', '.join(unknown)}; VOCABULARY lists those there are")
    if len(words) > SENTENCE_LENGTH:
        raise ValueError(
            f"{len(words)} words are more than {SENTENCE_LENGTH}, the longest sentence"
        )
    numbers = [NUMBER[word] for word in words]
    return np.array(numbers + [0] * (SENTENCE_LENGTH - len(words)), np.uint16)


def decode(numbers: ArrayLike) -> str:
    """The sentence that the numbers stand for."""
    return " ".join(VOCABULARY[int(number)] for number in np.asarray(numbers) if number)


def compose(kind: Kind, *words: str) -> str:
    """The sentence of a kind with the words filled in."""
    return PATTERNS[kind].format(*words)


def pattern_tables() -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """All sentences as arrays, for filling in many at once.

    Returns the numbers of every pattern, (kinds, SENTENCE_LENGTH + 1), and the place of every slot,
    (kinds, SLOTS); slots that a kind lacks have their place in the last column, to be cut off.
    """
    numbers = np.zeros((len(PATTERNS), SENTENCE_LENGTH + 1), np.uint16)
    places = np.full((len(PATTERNS), SLOTS), SENTENCE_LENGTH)
    for kind, text in PATTERNS.items():
        slot = 0
        for place, word in enumerate(text.split()):
            if word == "{}":
                places[kind, slot] = place
                slot += 1
            else:
                numbers[kind, place] = NUMBER[word]
    return numbers, places

"""What every memory offers to an agent: one contract, three methods, state passed and never left.

Shape letters of the whole project: B environments, T time, S memory slots, K keys (S + T),
H heads, D width, E input features, L layers, A actions. Batch first everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

State = tuple[Any, ...]
"""A NamedTuple of tensors (or of tuples of tensors), environments first in every leaf."""

S = TypeVar("S", bound=State)

MOST_STEPS = 2**22
"""The longest span and ramp, in steps: up to here single precision tells half steps apart too."""


class LiveMemories(NamedTuple):
    """The memories a state holds: those the step just taken could read, and that step itself.

    Shapes: age_BLS float, in steps: 0 is the step just taken, `inf` an empty slot. steps_S: how
    many steps a slot stands for, its own and those before it; None: one each.
    """

    age_BLS: Tensor
    steps_S: Tensor | None = None

    def count_BL(self) -> Tensor:
        """Number of memories held, per environment and layer."""
        return self.age_BLS.isfinite().sum(-1)

    def step_ages_BLSc(self) -> Tensor:
        """Ages of all the steps that each slot stands for, newest first; `inf` for none."""
        age_BLS1 = self.age_BLS[..., None]
        if self.steps_S is None:
            return age_BLS1
        back_c = torch.arange(int(self.steps_S.max()), device=age_BLS1.device)
        return torch.where(back_c < self.steps_S[:, None], age_BLS1 + back_c, torch.inf)


class Read(NamedTuple):
    """What one layer read from memories with spans of their own: enough to judge which it needed.

    N stretches of C queries, W keys each. span_BNW: spans in steps, at most `max_span`, and
    attention_MHCW, 0 where a key cannot be read (M = B * N), both with their graph; age_BNCW in
    steps; n_steps: steps of all environments in the segment.
    """

    span_BNW: Tensor
    attention_MHCW: Tensor
    age_BNCW: Tensor
    max_span: float
    n_steps: int


class Aux(NamedTuple):
    """What `unroll` learned about itself: losses for the spans and what the metrics need.

    span_loss, shrink_loss and limit_loss are scalars, summed over memories and layers and divided
    by the number of steps: the paper's penalty, one that also reaches spans longer than any
    episode, and what that lacks near the longest span (all in `span_mask`). reads: what `use_loss`
    needs, by layer; empty for memories without spans of their own. memory_loss: a loss of the
    memory's own, weighted, which agents add to theirs. span_BTL: predicted spans in steps of the
    memories born in the segment; live_BTL: number of earlier memories each step could read;
    evicted_B: memories dropped alive because the capacity was full. Memories without slots give
    None for these three.
    """

    span_loss: Tensor
    shrink_loss: Tensor
    limit_loss: Tensor
    reads: tuple[Read, ...] = ()
    span_BTL: Tensor | None = None
    live_BTL: Tensor | None = None
    evicted_B: Tensor | None = None
    memory_loss: Tensor | None = None


class Memory(nn.Module, ABC):
    """A sequence model with a memory that lasts for an episode.

    The module holds parameters only; everything remembered is in the state. `starts` marks the
    first step of an episode: the memory forgets by itself, no caller ever zeroes a state. `unroll`
    over a segment gives what `step` after `step` gives, to rounding.

    Attributes: dim_in (E) and dim_out (D), sizes of the input and output vectors; ramp, steps that
    a memory lasts beyond its span.
    """

    dim_in: int
    dim_out: int
    ramp: float = 0.0

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before the first step of `batch_size` environments, on the memory's device."""

    @abstractmethod
    def step(self, x_BE: Tensor, state: Any, starts_B: Tensor) -> tuple[Tensor, Any]:
        """Act: one step of every environment, without gradient. Returns (y_BD, new state).

        The state given is left as it was, so it can be stepped from again.
        """

    @abstractmethod
    def unroll(self, x_BTE: Tensor, state: Any, starts_BT: Tensor) -> tuple[Tensor, Any, Aux]:
        """Learn: a whole segment at once, with gradient. Returns (y_BTD, new state, aux).

        No gradient reaches the state given; the parameters get one through what it holds.
        """

    def shorten(self, state: Any) -> Any:
        """The state a training rollout begins with. A memory that is regularised by shortening its
        reach at random draws it here; acting and learning find it in the state."""
        return state

    def set_progress(self, share: float) -> None:
        """How much of the training is done, 0 to 1, for options that change on the way; agents say
        it before each rollout. A memory that was never told acts as at the end of the training."""

    def spans_at_birth(self, state: Any) -> Tensor | None:
        """Spans (B, L) in steps of the memories born at the last step; None without spans."""
        return None

    def live(self, state: Any) -> LiveMemories | None:
        """What the state holds, or None for a memory that has no separate memories to count."""
        return None

    def evicted(self, state: Any) -> Tensor | None:
        """Memories (B,) of each environment's episode that were dropped alive because the capacity
        was full; None for a memory that never does so."""
        return None


def map_state(fn: Callable[[Tensor], Tensor], state: S) -> S:
    """Apply `fn` to every tensor of a state."""

    def walk(node: Any) -> Any:
        if isinstance(node, Tensor):
            return fn(node)
        children = [walk(child) for child in node]
        return type(node)(*children) if hasattr(node, "_fields") else tuple(children)

    return walk(state)  # type: ignore[no-any-return]


def select_envs(state: S, index: Tensor) -> S:
    """The state of the environments `index` (int64 or bool, as in indexing) alone."""
    return map_state(lambda leaf: leaf[index], state)


def state_tensors(state: State) -> Iterable[Tensor]:
    """Every tensor of a state, in order."""
    for node in state:
        if isinstance(node, Tensor):
            yield node
        else:
            yield from state_tensors(node)


def state_bytes(state: State) -> int:
    """Bytes of memory a state takes."""
    return sum(leaf.numel() * leaf.element_size() for leaf in state_tensors(state))


def check_number(owner: str, name: str, value: float) -> None:
    """Raise ValueError for what is no number at all."""
    if not isinstance(value, Real):
        raise ValueError(f"{owner}: {name} = {value!r} must be a number")


def check_positive(owner: str, **values: float) -> None:
    """Raise ValueError for the first of `values` that is not above 0 and finite."""
    for name, value in values.items():
        check_number(owner, name, value)
        if not value > 0:
            raise ValueError(f"{owner}: {name} = {value} must be above 0")
        if math.isinf(value):
            raise ValueError(f"{owner}: {name} = {value} must be finite")


def check_counts(owner: str, **values: int) -> None:
    """Raise ValueError for the first of `values` that is not a whole number above 0."""
    for name, value in values.items():
        if isinstance(value, int | float):
            check_positive(owner, **{name: value})
        if not isinstance(value, int):
            raise ValueError(f"{owner}: {name} = {value!r} must be a whole number, an int")


def check_flags(owner: str, **values: bool) -> None:
    """Raise ValueError for the first of `values` that is neither True nor False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{owner}: {name} = {value!r} must be True or False")


def check_spans(owner: str, initial_span: float, max_span: float, ramp: float) -> None:
    """Raise ValueError unless single precision tells every age up to `max_span` and the ramp from
    the next, and `initial_span` is a fraction of `max_span`, neither none nor all."""
    check_positive(owner, max_span=max_span, ramp=ramp)
    for name, steps in (("max_span", max_span), ("ramp", ramp)):
        if steps > MOST_STEPS:
            raise ValueError(
                f"{owner}: {name} = {steps:g} must be at most {MOST_STEPS}: beyond that single "
                "precision does not tell one step from the next"
            )
    check_number(owner, "initial_span", initial_span)
    if not 0 < initial_span < 1:
        steps = max(1.0, initial_span)
        raise ValueError(
            f"{owner}: initial_span = {initial_span} must lie between 0 and 1: it is a fraction of "
            f"max_span, for {steps:g} steps use {min(steps / max_span, 0.5):g}"
        )


def no_spans(like: Tensor) -> Aux:
    """The `Aux` of a memory without spans, on the device of `like`."""
    zero = torch.zeros((), device=like.device)
    return Aux(zero, zero, zero)

"""How hard memories are pressed to be short: a constant, or as hard as the return allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Protocol

import numpy as np
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from expire_span.memory import MEMORIES, Aux, use_loss

from .episode_returns import MIN_EPISODES, best_return

SpanCoef = float | Literal["auto"]
UseSign = Literal["influence", "attention"]

SHRINK_WEIGHT = 0.1
"""Weight of `shrink_loss` beside the paper's penalty, which presses harder but on the ramp only."""


MAX_COEF: dict[UseSign, float] = {"influence": 1e-3, "attention": 1e-4}
"""alpha while the return is at its best, by the sign of use. Attention takes so much for used that
a stronger pressure would have to be held against everywhere."""

DECIDED = 4.0
"""Mean size of preferences, in nats, from which influence is a sign to be trusted in full: with
three actions, 99.5 % for one of them. A policy that has not made up its mind owes nothing to any
memory, and would let go of all of them."""


class SpanControl(Protocol):
    """Sets alpha, the weight of the pressure on spans, once per rollout."""

    coef: float

    def update(self, returns: Sequence[float], live_mean: float, progress_remaining: float) -> None:
        """Take in the returns of the recent episodes, the mean number of live memories, and how
        much of the training is left, 1 to 0."""

    def loss(self, aux: Aux, preference_BT: Tensor) -> Tensor:
        """What the spans add to the loss of an update whose actions were preferred so much."""


@dataclass
class ConstantSpanControl:
    """The paper's: one alpha for the whole run. Some runs lose what they learned under it."""

    coef: float

    def update(self, returns: Sequence[float], live_mean: float, progress_remaining: float) -> None:
        """Nothing to adapt."""

    def loss(self, aux: Aux, preference_BT: Tensor) -> Tensor:
        """alpha times the paper's penalty."""
        return self.coef * aux.span_loss


@dataclass
class AutoSpanControl:
    """Shrinks memory only while the return does not suffer.

    Once every episode succeeds, advantages vanish and the span loss is the only gradient left: a
    constant alpha then lets needed memories expire. Here two forces meet. All memories are pressed
    by alpha; those the policy needs are held by `use_loss`, which does not fade with the
    advantages. And alpha follows the return (and by influence, how decided the policy is):

    - It falls linearly from its full value (`MAX_COEF`) to 0 as the recent return falls from the
      best seen to `tolerance` below it. The best forgets slowly, so a lucky stretch does not switch
      the pressure off for good; the tolerance grows with the standard error of the recent return,
      so noise does not either.
    - At or below `target_live` memories there is nothing left to gain, and it is 0.
    """

    use_by: UseSign = "attention"
    """What shows that a memory is in use: attention, or influence on the action."""
    use_coef: float = 0.1
    """Weight of the loss that holds the memories in use."""
    target_live: Schedule | None = None
    """Mean live memories per layer at which shrinking stops, by how much of the training is left;
    None: as few as the return allows."""
    tolerance: float = 0.02
    """Shortfall of the recent return, as a fraction of the best, at which alpha reaches 0."""
    best: float = -math.inf
    coef: float = 0.0

    def update(self, returns: Sequence[float], live_mean: float, progress_remaining: float) -> None:
        """Set `coef` for the next update of the weights."""
        self.coef = 0.0
        if len(returns) < MIN_EPISODES:
            return
        recent = float(np.mean(returns))
        noise = float(np.std(returns)) / math.sqrt(len(returns))
        self.best = best_return(self.best, recent)
        if self.target_live is not None and live_mean <= self.target_live(progress_remaining):
            return  # small enough
        allowed = self.tolerance * abs(self.best) + noise
        shortfall = (self.best - recent) / allowed if allowed > 0 else 0.0
        self.coef = MAX_COEF[self.use_by] * max(0.0, 1.0 - shortfall)

    def loss(self, aux: Aux, preference_BT: Tensor) -> Tensor:
        """The pressure on all memories, and what holds those in use."""
        pressure = self.coef * (aux.span_loss + SHRINK_WEIGHT * aux.shrink_loss)
        if not aux.reads:
            return pressure
        if self.use_by == "attention":
            return pressure + self.use_coef * use_loss(aux.reads, None)
        pressure = pressure + self.coef * SHRINK_WEIGHT * aux.limit_loss
        decided = (preference_BT.detach().abs().mean() / DECIDED).clamp(max=1)
        return decided * pressure + self.use_coef * use_loss(aux.reads, preference_BT)


SPAN_DEFAULTS: dict[str, Any] = {"span_coef": "auto", "target_live": None, "use_by": "attention"}
"""The options that steer spans, as they are unless given."""


def check_span_options(memory: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for one of `SPAN_DEFAULTS` that is given and changes nothing: beside the
    memory of that name, or beside a constant `span_coef`."""
    given = {name: options[name] for name, value in SPAN_DEFAULTS.items() if options[name] != value}
    kind = MEMORIES.get(memory)
    if kind is not None and not kind.learns_spans:
        reason, unused = f"memory = {memory!r}, which learns no spans", list(given)
    elif kind is not None and not kind.spans_single_memories and "use_by" in given:
        reason, unused = f"memory = {memory!r}, whose memories share a span", ["use_by"]
    else:
        reason = f"span_coef = {options['span_coef']!r}, which presses all alike"
        unused = [name for name in given if name == "use_by" and "span_coef" in given]
    for name in unused:
        raise ValueError(f"{name} = {given[name]!r} changes nothing with {reason}; leave it out")


def make_span_control(
    span_coef: SpanCoef, target_live: float | Schedule | None, use_by: UseSign
) -> SpanControl:
    """Raises ValueError for a negative coefficient, an unknown sign of use, or a target that
    nothing would steer to."""
    if use_by not in MAX_COEF:
        raise ValueError(f"use_by = {use_by!r} is unknown; known: {', '.join(MAX_COEF)}")
    if span_coef == "auto":
        if target_live is None:
            return AutoSpanControl(use_by)
        if not callable(target_live) and not isinstance(target_live, Real):
            raise ValueError(
                f"target_live = {target_live!r} must be a number, a function or None for no target"
            )
        schedule = FloatSchedule(target_live if callable(target_live) else float(target_live))
        lowest = min(schedule(1.0), schedule(0.0))
        if not lowest > 0:
            raise ValueError(f"target_live = {lowest:g} must be above 0, or None for no target")
        return AutoSpanControl(use_by, target_live=schedule)
    if not isinstance(span_coef, Real) or not 0 <= span_coef < math.inf:
        raise ValueError(
            f"span_coef = {span_coef!r} must be 'auto' or a number of at least 0, finite"
        )
    if target_live is not None:
        raise ValueError(
            f"target_live = {target_live} needs span_coef='auto'; a constant span_coef = "
            f"{span_coef} steers to no target, so set target_live = None"
        )
    return ConstantSpanControl(float(span_coef))

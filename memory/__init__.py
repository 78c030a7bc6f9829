"""Memories for sequence models: torch only, no reinforcement learning in here.

memory = make_memory("expire-span", dim_in=32, max_span=1024)
state = memory.initial_state(batch_size)
y, state = memory.step(x, state, starts)            # acting
y, state, aux = memory.unroll(xs, state, starts)    # learning
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from .adaptive_span import AdaptiveSpan, AdaptiveSpanConfig
from .compressive import Compressive, CompressiveConfig
from .contract import (
    Aux,
    LiveMemories,
    Memory,
    Read,
    State,
    check_counts,
    map_state,
    select_envs,
    state_bytes,
)
from .expire_span import ExpireSpan, ExpireSpanConfig
from .fixed_window import FixedWindow, NoMemoryConfig, TransformerXLConfig
from .recurrent import GRUConfig, LSTMConfig, Recurrent
from .span_mask import soft_mask, span_penalty
from .use import use_loss

__all__ = [
    "MEMORIES",
    "AdaptiveSpan",
    "AdaptiveSpanConfig",
    "Aux",
    "Compressive",
    "CompressiveConfig",
    "ExpireSpan",
    "ExpireSpanConfig",
    "FixedWindow",
    "GRUConfig",
    "LSTMConfig",
    "LiveMemories",
    "Memory",
    "MemoryKind",
    "NoMemoryConfig",
    "Read",
    "Recurrent",
    "State",
    "TransformerXLConfig",
    "make_memory",
    "map_state",
    "select_envs",
    "soft_mask",
    "span_penalty",
    "state_bytes",
    "use_loss",
]


class MemoryKind(NamedTuple):
    """An entry of the registry: the class and the dataclass of its options."""

    build: Callable[[int, Any], Memory]
    config: type[Any]
    spans_single_memories: bool = False
    """Whether every memory has a span of its own, so that those in use can be held."""

    @property
    def learns_spans(self) -> bool:
        """Whether there are spans for a span loss to shorten."""
        return any(field.name == "max_span" for field in dataclasses.fields(self.config))


MEMORIES: dict[str, MemoryKind] = {
    "expire-span": MemoryKind(ExpireSpan, ExpireSpanConfig, spans_single_memories=True),
    "transformer-xl": MemoryKind(FixedWindow, TransformerXLConfig),
    "adaptive-span": MemoryKind(AdaptiveSpan, AdaptiveSpanConfig),
    "compressive": MemoryKind(Compressive, CompressiveConfig),
    "gru": MemoryKind(Recurrent, GRUConfig),
    "lstm": MemoryKind(Recurrent, LSTMConfig),
    "none": MemoryKind(FixedWindow, NoMemoryConfig),
}
"""Every memory by name. To add one: a `Memory`, a config dataclass, a line here."""


def make_memory(name: str, dim_in: int, **options: Any) -> Memory:
    """Build the memory `name` for inputs of size `dim_in`.

    Raises ValueError for an unknown name or a value out of bounds, TypeError for an unknown option;
    each message lists what there is.
    """
    if name not in MEMORIES:
        raise ValueError(f"unknown memory {name!r}; known: {', '.join(MEMORIES)}")
    kind = MEMORIES[name]
    known = [field.name for field in dataclasses.fields(kind.config)]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise TypeError(
            f"memory {name!r} has no option {', '.join(unknown)}; it has: {', '.join(known)}"
        )
    dim_in = operator.index(dim_in)  # SB3 gives sizes as integers of numpy's
    check_counts(name, dim_in=dim_in)
    return kind.build(dim_in, kind.config(**options))

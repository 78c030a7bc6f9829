"""Time and bytes follow the live memories, and acting does not wait for the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from expire_span.memory import MEMORIES, ExpireSpan, ExpireSpanConfig, make_memory, state_bytes
from expire_span.memory.slot_transformer import SLOT_CHUNK, SlotState

B, T, E = 16, 64, 32
SPAN = 32.5
"""Steps every memory lives before its ramp; half a step off the boundary between two ages."""


def memory_and_state(max_span: float, span: float = SPAN) -> tuple[ExpireSpan, SlotState]:
    """A memory whose spans are all `span`, after two segments."""
    torch.manual_seed(0)
    memory = ExpireSpan(E, ExpireSpanConfig(max_span=max_span, initial_span=span / max_span))
    state = memory.initial_state(B)
    starts_BT = torch.zeros(B, T, dtype=torch.bool)
    for _ in range(2):
        state = memory.unroll(torch.randn(B, T, E), state, starts_BT)[1]
    return memory, state


def learning_seconds(memory: ExpireSpan, state: SlotState) -> float:
    """One unroll forward and backward, in seconds of CPU: others may load the machine."""
    x_BTE = torch.randn(B, T, E)
    starts_BT = torch.zeros(B, T, dtype=torch.bool)
    memory.zero_grad()
    begin = time.process_time()
    y_BTD, _, aux = memory.unroll(x_BTE, state, starts_BT)
    (y_BTD.square().mean() + aux.span_loss).backward()  # type: ignore[no-untyped-call]
    return time.process_time() - begin


def acting_seconds(memory: ExpireSpan, state: SlotState) -> float:
    """One segment step by step, in seconds of CPU."""
    x_BTE = torch.randn(B, T, E)
    starts_B = torch.zeros(B, dtype=torch.bool)
    begin = time.process_time()
    for t in range(T):
        _, state = memory.step(x_BTE[:, t], state, starts_B)
    return time.process_time() - begin


@pytest.mark.parametrize("seconds", [learning_seconds, acting_seconds])
def test_time_follows_the_live_memories_and_not_max_span(
    seconds: Callable[[ExpireSpan, SlotState], float],
) -> None:
    small, large = memory_and_state(256), memory_and_state(65_536)
    ratios = []
    for _ in range(3):  # other work on the machine may spoil a measurement
        pairs = [(seconds(*small), seconds(*large)) for _ in range(16)]
        ratios.append(median(pair[1] for pair in pairs) / median(pair[0] for pair in pairs))
        if ratios[-1] <= 1.1:
            break
    assert ratios[-1] <= 1.1, ratios


def test_bytes_follow_the_live_memories_and_not_max_span() -> None:
    (small, state), (large, large_state) = memory_and_state(256), memory_and_state(65_536)
    live_BL = small.live(state).count_BL()
    # ages 0 to 48 are within a span of 32.5 and a ramp of 16
    assert live_BL.tolist() == large.live(large_state).count_BL().tolist() == [[49, 49]] * B
    assert state_bytes(state) == state_bytes(large_state)
    bytes_per_slot = B * small.n_layers * (small.width + 1) * 4
    assert state_bytes(state) <= (49 + SLOT_CHUNK) * bytes_per_slot + B * 8

    _, longer = memory_and_state(256, span=90.5)
    assert state_bytes(longer) > 1.5 * state_bytes(state)
    starts_B = torch.ones(B, dtype=torch.bool)
    begun = small.step(torch.randn(B, E), state, starts_B)[1]
    assert state_bytes(begun) < state_bytes(state) / 2


REACHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "expire-span": ({"max_span": 128}, {"max_span": 65_536, "initial_span": 64 / 65_536}),
    "adaptive-span": (
        {"max_span": 128, "initial_span": 0.99},
        {"max_span": 65_536, "initial_span": 0.99},
    ),
    "transformer-xl": ({"window": 64}, {"window": 65_536}),
    "compressive": ({"window": 60, "n_compressed": 1}, {"window": 60, "n_compressed": 16_384}),
    "compressive, window": ({"window": 64, "n_compressed": 1}, {"window": 65_536}),
}
"""A short and a far reach of every memory that has one, which episodes of 60 steps do not fill."""


@pytest.mark.parametrize("case", REACHES)
def test_bytes_and_work_follow_what_there_is_and_not_the_reach(case: str) -> None:
    n_bytes, n_flops = [], []
    for options in REACHES[case]:
        memory = make_memory(case.partition(",")[0], dim_in=E, **options)
        state, starts_B = memory.initial_state(B), torch.ones(B, dtype=torch.bool)
        for _ in range(60):
            state = memory.step(torch.randn(B, E), state, starts_B)[1]
            starts_B = torch.zeros(B, dtype=torch.bool)
        n_bytes.append(state_bytes(state))
        with profile(activities=[ProfilerActivity.CPU], with_flops=True) as measured:
            memory.step(torch.randn(B, E), state, starts_B)
        n_flops.append(sum(event.flops for event in measured.key_averages()))
    assert n_bytes[0] == n_bytes[1]
    assert n_flops[0] == n_flops[1] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", MEMORIES)
def test_most_steps_do_not_wait_for_the_device(name: str) -> None:
    memory, n_steps = make_memory(name, dim_in=E).to("cuda"), 8 * SLOT_CHUNK
    x_BTE = torch.randn(B, n_steps, E, device="cuda")
    starts_BT = torch.zeros(B, n_steps, dtype=torch.bool, device="cuda")
    state = memory.initial_state(B)
    memory.step(x_BTE[:, 0], state, starts_BT[:, 0])  # libraries load
    waited = 0
    for t in range(n_steps):
        torch.cuda.set_sync_debug_mode("error")
        try:
            following = memory.step(x_BTE[:, t], state, starts_BT[:, t])[1]
        except RuntimeError as error:
            assert "synchroniz" in str(error)
            waited += 1
            torch.cuda.set_sync_debug_mode("default")
            following = memory.step(x_BTE[:, t], state, starts_BT[:, t])[1]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        state = following
    # slots are counted when a chunk of them is full, and at the first step
    assert waited <= n_steps / SLOT_CHUNK + 1

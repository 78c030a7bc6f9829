"""Invariants of every registered memory: what `unroll` learns from is what `step` acted on.

B environments, T steps, E input features, D output features, L layers, S slots.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from expire_span.memory import (
    MEMORIES,
    AdaptiveSpan,
    Memory,
    State,
    make_memory,
    map_state,
    select_envs,
)

E = 6
SMALL: dict[str, Any] = {
    "width": 16,
    "n_heads": 2,
    "ffn_width": 24,
    "n_layers": 2,
    "max_span": 24,
    "ramp": 5,
    "initial_span": 0.3,
    "window": 7,
    "compression": 3,
    "n_compressed": 4,
}
"""Sizes at which memories expire inside a segment; a memory gets those it has options for."""


class Case(NamedTuple):
    """A memory by name, and options beside the small sizes."""

    name: str
    options: dict[str, Any]

    def build(self, device: str = "cpu", seed: int = 0) -> Memory:
        """With no parameter left at zero: the span predictor and positions start there."""
        known = {field.name for field in dataclasses.fields(MEMORIES[self.name].config)}
        sizes = {key: value for key, value in SMALL.items() if key in known}
        torch.manual_seed(seed)
        memory = make_memory(self.name, dim_in=E, **(sizes | self.options))
        with torch.no_grad():
            for parameter in memory.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.5)
            if isinstance(memory, AdaptiveSpan):
                memory.fraction_LH.uniform_(-0.2, 1.2)  # heads that differ, some out of bounds
        return memory.to(device)


def cases(*more: tuple[str, dict[str, Any]]) -> list[Any]:
    plain: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in MEMORIES]
    return [
        pytest.param(
            Case(name, options), id="-".join([name, *(f"{k}={v}" for k, v in options.items())])
        )
        for name, options in (*plain, *more)
    ]


EXPIRE_SPAN_BOUNDED: list[tuple[str, dict[str, Any]]] = [
    ("expire-span", {"max_live": 4}),
    ("expire-span", {"max_live": 20, "max_span": 80}),
]
OTHERS: list[tuple[str, dict[str, Any]]] = [
    *EXPIRE_SPAN_BOUNDED,
    ("expire-span", {"max_span": 300, "ramp": 40, "n_layers": 3}),
    ("expire-span", {"max_span": 1.0, "ramp": 1}),
    ("expire-span", {"max_span": 60, "shorten": True}),
    ("expire-span", {"max_span": 24, "ramp": 0.5, "temperature": 3.0}),
    ("transformer-xl", {"window": 1}),
    ("transformer-xl", {"window": 100}),
    ("adaptive-span", {"max_span": 300, "ramp": 40, "n_layers": 3}),
    ("adaptive-span", {"max_span": 2.0, "ramp": 1}),
    ("compressive", {"window": 1, "compression": 1, "n_compressed": 50}),
    ("compressive", {"window": 30, "compression": 2, "n_compressed": 1}),
    ("compressive", {"gated": True, "compression": 5}),
    ("expire-span", {"gated": True}),
    ("lstm", {"n_layers": 2}),
    ("gru", {"n_layers": 2}),
]
SLOTTED = [
    case for case in cases(*OTHERS) if (m := case.values[0].build()).live(m.initial_state(1))
]
"""Those that hold memories in slots."""

SPANNED = [
    case
    for case in SLOTTED
    if (m := case.values[0].build()).spans_at_birth(m.initial_state(1)) is not None
]
"""Those whose memories have spans."""

for_every_memory = pytest.mark.parametrize("case", cases(*EXPIRE_SPAN_BOUNDED))
for_every_variant = pytest.mark.parametrize("case", cases(*OTHERS))
for_every_slotted = pytest.mark.parametrize("case", SLOTTED)
for_every_spanned = pytest.mark.parametrize("case", SPANNED)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])


def draw(B: int, T: int, seed: int = 1, p_start: float = 0.04) -> tuple[Tensor, Tensor]:
    """Inputs, and episode starts at random steps; none in the last environment."""
    generator = torch.Generator().manual_seed(seed)
    x_BTE = torch.randn(B, T, E, generator=generator)
    starts_BT = torch.rand(B, T, generator=generator) < p_start
    starts_BT[-1] = False
    return x_BTE, starts_BT


def steps(memory: Memory, x_BTE: Tensor, state: State, starts_BT: Tensor) -> tuple[Tensor, State]:
    ys = []
    for t in range(x_BTE.shape[1]):
        y_BD, state = memory.step(x_BTE[:, t], state, starts_BT[:, t])
        ys.append(y_BD)
    return torch.stack(ys, 1), state


def carried(memory: Memory, B: int, T: int, by: str, seed: int = 2) -> State:
    """The state after `T` steps taken one by one, or unrolled, as a rollout begins with it."""
    device = next(memory.parameters()).device
    x_BTE, starts_BT = (part.to(device) for part in draw(B, T, seed))
    state = memory.initial_state(B)
    if by == "steps":
        return memory.shorten(steps(memory, x_BTE, state, starts_BT)[1])  # type: ignore[no-any-return]
    return memory.shorten(memory.unroll(x_BTE, state, starts_BT)[1])  # type: ignore[no-any-return]


def assert_close(left: Tensor, right: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=tolerance)


def assert_same_state(memory: Memory, left: State, right: State) -> None:
    """The same memories are held, in whatever slots, and what follows is the same."""
    live_left, live_right = memory.live(left), memory.live(right)
    if live_left is not None and live_right is not None:
        for ours, theirs in zip(
            live_left.age_BLS.flatten(0, 1), live_right.age_BLS.flatten(0, 1), strict=True
        ):
            held = [ages[ages.isfinite()].sort().values for ages in (ours, theirs)]
            assert held[0].tolist() == held[1].tolist()
        evicted = [getattr(state, "evicted_B", torch.zeros(1)) for state in (left, right)]
        assert evicted[0].tolist() == evicted[1].tolist()
    x_BTE, starts_BT = draw(len(next(iter(left))), 12, seed=3, p_start=0.0)
    device = next(memory.parameters()).device
    x_BTE, starts_BT = x_BTE.to(device), starts_BT.to(device)
    assert_close(
        steps(memory, x_BTE, left, starts_BT)[0], steps(memory, x_BTE, right, starts_BT)[0]
    )


# unroll and step


@on_every_device
@pytest.mark.parametrize(("B", "T"), [(3, 1), (1, 2), (2, 32), (4, 45), (3, 101)])
@for_every_variant
def test_unroll_equals_step_after_step(case: Case, B: int, T: int, device: str) -> None:
    memory = case.build(device)
    x_BTE, starts_BT = (part.to(device) for part in draw(B, T))
    for state in (
        memory.initial_state(B),
        carried(memory, B, 40, by="steps"),
        carried(memory, B, 53, by="unroll"),
    ):
        y_BTD, after_unroll, _ = memory.unroll(x_BTE, state, starts_BT)
        stepped_BTD, after_steps = steps(memory, x_BTE, state, starts_BT)
        assert_close(y_BTD, stepped_BTD)
        assert_same_state(memory, after_unroll, after_steps)


@pytest.mark.parametrize("cuts", [(1,), (31, 33), (32, 64), (7, 50, 69)])
@for_every_variant
def test_splitting_an_unroll_changes_nothing(case: Case, cuts: tuple[int, ...]) -> None:
    memory, T = case.build(), 70
    x_BTE, starts_BT = draw(4, T)
    state = carried(memory, 4, 30, by="unroll")
    whole_BTD, whole_state, whole_aux = memory.unroll(x_BTE, state, starts_BT)
    pieces = []
    for begin, end in zip((0, *cuts), (*cuts, T), strict=True):
        piece = memory.unroll(x_BTE[:, begin:end], state, starts_BT[:, begin:end])
        state = piece[1]
        pieces.append(piece)
    assert_close(torch.cat([y for y, _, _ in pieces], 1), whole_BTD)
    assert_same_state(memory, state, whole_state)

    auxes = [aux for _, _, aux in pieces]
    lengths = [y.shape[1] for y, _, _ in pieces]
    loss = sum(aux.span_loss.item() * n for aux, n in zip(auxes, lengths, strict=True)) / T
    assert loss == pytest.approx(whole_aux.span_loss.item(), abs=1e-5)
    if whole_aux.live_BTL is not None and whole_aux.evicted_B is not None:
        live = [aux.live_BTL for aux in auxes if aux.live_BTL is not None]
        assert torch.equal(torch.cat(live, 1), whole_aux.live_BTL)
        evicted = [aux.evicted_B for aux in auxes if aux.evicted_B is not None]
        assert torch.equal(torch.stack(evicted).sum(0), whole_aux.evicted_B)


@for_every_memory
def test_a_state_given_is_left_as_it_was_and_gets_no_gradient(case: Case) -> None:
    memory = case.build()
    x_BTE, starts_BT = draw(3, 20)
    state = carried(memory, 3, 40, by="steps")
    copy = map_state(torch.clone, state)
    first_BD = memory.step(x_BTE[:, 0], state, starts_BT[:, 0])[0]
    leaves = [state[0].requires_grad_()]  # what is remembered; ages and counts are numbers
    loss = memory.unroll(x_BTE, state, starts_BT)[0].sum()
    assert torch.autograd.grad(loss, leaves, allow_unused=True) == (None,) * len(leaves)
    assert torch.equal(memory.step(x_BTE[:, 0], state, starts_BT[:, 0])[0], first_BD)
    assert all(torch.equal(*pair) for pair in zip(state, copy, strict=True))


# empty slots and deleted memories


def poisoned(memory: Memory, state: State) -> State | None:
    """The state with NaN wherever an empty slot has room for a vector; None if no slot is empty."""
    live = memory.live(state)
    assert live is not None
    empty_BLS = live.age_BLS.isinf()

    def fill(leaf: Tensor) -> Tensor:
        if leaf.dim() > 3 and leaf.shape[:3] == empty_BLS.shape:
            return leaf.masked_fill(empty_BLS[..., None], torch.nan)
        return leaf

    return map_state(fill, state) if empty_BLS.any() else None


def gradients(memory: Memory, x_BTE: Tensor, state: State, starts_BT: Tensor) -> list[Tensor]:
    """Of a loss on every output and of the span loss, for the inputs and every parameter."""
    x_BTE = x_BTE.clone().requires_grad_()
    y_BTD, _, aux = memory.unroll(x_BTE, state, starts_BT)
    weights_BTD = torch.arange(y_BTD.numel(), device=y_BTD.device).view_as(y_BTD).cos()
    loss = (y_BTD * weights_BTD).sum() + aux.span_loss
    found = torch.autograd.grad(loss, [x_BTE, *memory.parameters()], allow_unused=True)
    return [grad for grad in found if grad is not None]


@on_every_device
@pytest.mark.parametrize(("B", "T"), [(4, 45), (2, 1)])
@for_every_slotted
def test_empty_slots_are_never_read(case: Case, B: int, T: int, device: str) -> None:
    memory = case.build(device)
    x_BTE, starts_BT = (part.to(device) for part in draw(B, T))
    states = [memory.initial_state(B), *(carried(memory, B, 40, by) for by in ("steps", "unroll"))]
    tried = 0
    for state in states:
        bad = poisoned(memory, state)
        if bad is None:
            continue
        tried += 1
        assert any(leaf.isnan().any() for leaf in bad)
        for unroll_or_step in (memory.unroll, partial(steps, memory)):
            left, right = (unroll_or_step(x_BTE, s, starts_BT)[0] for s in (bad, state))
            assert torch.equal(left, right)
        grads = (gradients(memory, x_BTE, s, starts_BT) for s in (bad, state))
        for ours, theirs in zip(*grads, strict=True):
            assert ours.isfinite().all()
            assert_close(ours, theirs, 0.0 if device == "cpu" else 1e-3)  # CUDA adds in any order
    assert tried >= 2


@on_every_device
@for_every_spanned
def test_only_memories_within_span_and_ramp_are_read_or_kept(case: Case, device: str) -> None:
    # With one layer an output depends on the inputs of the live memories and on no others.
    options = case.options | {"n_layers": 1}
    memory, B, T = Case(case.name, options).build(device), 3, 40
    x_BTE, starts_BT = (part.to(device) for part in draw(B, T))
    x_BTE.requires_grad_()
    y_BTD, state, aux = memory.unroll(x_BTE, memory.initial_state(B), starts_BT)
    assert aux.span_BTL is not None and aux.live_BTL is not None
    episode_BT, span_BT = starts_BT.cumsum(1), aux.span_BTL[..., 0]
    bound = options.get("max_live", T)
    for t in range(T):
        (grad_BTE,) = torch.autograd.grad(y_BTD[:, t].square().sum(), x_BTE, retain_graph=True)
        age_T = t - torch.arange(T, device=device)
        ramp = getattr(memory, "ramp", 1.0)
        alive_BT = (span_BT + ramp > age_T) & (age_T > 0) & (episode_BT == episode_BT[:, t, None])
        if "max_live" not in options:
            assert torch.equal((grad_BTE != 0).any(-1) & (age_T != 0), alive_BT)
        assert not ((grad_BTE != 0).any(-1) & (age_T != 0) & ~alive_BT).any()
        assert aux.live_BTL[:, t, 0].tolist() == alive_BT.sum(1).clamp(max=bound - 1).tolist()
    live = memory.live(state)
    assert live is not None
    assert live.count_BL()[:, 0].tolist() == (aux.live_BTL[:, -1, 0] + 1).tolist()


# episodes, environments, time


def run(memory: Memory, x_BTE: Tensor, starts_BT: Tensor, by: str) -> Tensor:
    """Outputs from a fresh state on: step by step, or as two segments."""
    state, half = memory.initial_state(len(x_BTE)), x_BTE.shape[1] // 2
    if by == "steps":
        return steps(memory, x_BTE, state, starts_BT)[0]
    first_BTD, state, _ = memory.unroll(x_BTE[:, :half], state, starts_BT[:, :half])
    return torch.cat([first_BTD, memory.unroll(x_BTE[:, half:], state, starts_BT[:, half:])[0]], 1)


def assert_independent(
    memory: Memory, x_BTE: Tensor, starts_BT: Tensor, inputs_BT: Tensor, outputs_BT: Tensor
) -> None:
    """The outputs marked do not change with the inputs marked, and have no gradient for them."""
    other_BTE = torch.where(inputs_BT[..., None], 3 * x_BTE.flip(-1) - 1, x_BTE)
    for by in ("steps", "unroll"):
        before, after = (run(memory, x, starts_BT, by)[outputs_BT] for x in (x_BTE, other_BTE))
        assert_close(before, after, 1e-6)
    x_BTE = x_BTE.clone().requires_grad_()
    y_BTD, _, _ = memory.unroll(x_BTE, memory.initial_state(len(x_BTE)), starts_BT)
    (grad_BTE,) = torch.autograd.grad(y_BTD[outputs_BT].square().sum(), x_BTE)
    assert not grad_BTE[inputs_BT].any() and grad_BTE.any()


@for_every_memory
def test_nothing_crosses_an_episode_start(case: Case) -> None:
    memory, (x_BTE, starts_BT) = case.build(), draw(3, 60, p_start=0.0)
    begins_B = torch.tensor([5, 30, 41])
    starts_BT[torch.arange(3), begins_B] = True
    before_BT = torch.arange(60) < begins_B[:, None]
    assert_independent(memory, x_BTE, starts_BT, before_BT, ~before_BT)
    for by in ("steps", "unroll"):
        whole_BTD = run(memory, x_BTE, starts_BT, by)
        for i, begin in enumerate(begins_B.tolist()):
            alone_1TD = run(memory, x_BTE[i : i + 1, begin:], starts_BT[i : i + 1, begin:], by)
            assert_close(whole_BTD[i, begin:], alone_1TD[0])


@for_every_memory
@pytest.mark.parametrize("by", ["steps", "unroll"])
def test_a_start_in_every_environment_leaves_nothing_of_what_was(case: Case, by: str) -> None:
    memory, (x_BTE, starts_BT) = case.build(), draw(3, 40, p_start=0.0)
    starts_BT[:, 0] = True
    used, fresh = carried(memory, 3, 60, by), memory.initial_state(3)
    if by == "steps":
        (used_BTD, used), (fresh_BTD, fresh) = (
            steps(memory, x_BTE, state, starts_BT) for state in (used, fresh)
        )
    else:
        (used_BTD, used, _), (fresh_BTD, fresh, _) = (
            memory.unroll(x_BTE, state, starts_BT) for state in (used, fresh)
        )
    assert_close(used_BTD, fresh_BTD)
    assert_same_state(memory, used, fresh)


@for_every_memory
def test_no_output_sees_the_future(case: Case) -> None:
    memory, (x_BTE, starts_BT) = case.build(), draw(3, 60)
    for t in (1, 31, 45):
        future_BT = (torch.arange(60) >= t).expand(3, 60)
        assert_independent(memory, x_BTE, starts_BT, future_BT, ~future_BT)


@for_every_memory
def test_environments_do_not_mix(case: Case) -> None:
    memory, (x_BTE, starts_BT) = case.build(), draw(4, 60)
    one_BT = (torch.arange(4) == 1)[:, None].expand(4, 60)
    assert_independent(memory, x_BTE, starts_BT, one_BT, ~one_BT)


@for_every_memory
def test_order_of_environments_is_irrelevant(case: Case) -> None:
    memory, (x_BTE, starts_BT) = case.build(), draw(5, 60)
    order_B = torch.tensor([3, 0, 4, 1, 2])
    for by in ("steps", "unroll"):
        y_BTD = run(memory, x_BTE, starts_BT, by)
        assert_close(run(memory, x_BTE[order_B], starts_BT[order_B], by), y_BTD[order_B])
        state = carried(memory, 5, 40, by)
        y_BTD = memory.unroll(x_BTE, state, starts_BT)[0]
        chosen = memory.unroll(x_BTE[order_B], select_envs(state, order_B), starts_BT[order_B])
        assert_close(chosen[0], y_BTD[order_B])

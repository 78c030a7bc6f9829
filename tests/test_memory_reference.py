"""Expire-span against the paper's equations, written out memory by memory in a plain loop.

B environments, T steps, E input features, D width, H heads, L layers; N memories read at a step.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from expire_span.memory import ExpireSpan, ExpireSpanConfig, soft_mask, span_penalty
from expire_span.memory.span_mask import limit_loss, shrink_loss

E = 5
SMALL: dict[str, Any] = {"width": 12, "n_layers": 2, "n_heads": 3, "ffn_width": 20}
EXPIRING: dict[str, Any] = {**SMALL, "max_span": 25, "ramp": 6, "initial_span": 0.4}
OPTIONS: list[dict[str, Any]] = [
    EXPIRING,
    {**EXPIRING, "max_live": 5, "initial_span": 0.1},
    {**EXPIRING, "max_live": 17, "max_span": 60},
    {**EXPIRING, "ramp": 0.7, "temperature": 2.5},
    {**EXPIRING, "n_layers": 1, "max_span": 400, "ramp": 50},
    {**EXPIRING, "max_span": 60, "shorten": True},
]
for_all_options = pytest.mark.parametrize("options", OPTIONS)


def build(random_spans: bool = True, **options: Any) -> ExpireSpan:
    """In double precision, so that a difference is a mistake."""
    torch.manual_seed(0)
    memory = ExpireSpan(E, ExpireSpanConfig(**options)).double()
    with torch.no_grad():
        for layer in memory.layers:
            layer.attention.age_mix_HJ.normal_()  # type: ignore[operator, union-attr]
        if random_spans:
            memory.span_predictor.weight_LD.normal_(std=0.5)
    return memory


def draw(B: int, T: int, p_start: float = 0.04) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_BTE = torch.randn(B, T, E, generator=generator, dtype=torch.float64)
    starts_BT = torch.rand(B, T, generator=generator) < p_start
    starts_BT[-1] = False
    return x_BTE, starts_BT


class Kept(NamedTuple):
    """One memory: the step it was born at, and what its layer was given then."""

    born: int
    hidden_D: Tensor


class Played(NamedTuple):
    """What the reference says of one environment, from its step `begin` on."""

    y_TD: Tensor
    penalty: Tensor
    live_TL: list[list[int]]
    evicted_T: list[int]


class Reference:
    """One environment, one step, one layer at a time; a list of memories per layer."""

    def __init__(self, memory: ExpireSpan, limit: Tensor) -> None:
        self.memory, self.ramp, self.limit = memory, memory.ramp, limit

    def play(self, x_TE: Tensor, starts_T: Tensor, begin: int = 0) -> Played:
        """Gradients stop at memories born before `begin`."""
        memory = self.memory
        self.kept: list[list[Kept]] = [[] for _ in range(memory.n_layers)]
        self.penalty = x_TE.new_zeros(())
        ys, lives, evictions = [], [], []
        for t in range(len(x_TE)):
            if starts_T[t]:
                self.kept = [[] for _ in range(memory.n_layers)]
            if t == begin:
                self.kept = [[Kept(m.born, m.hidden_D.detach()) for m in ms] for ms in self.kept]
                self.penalty = x_TE.new_zeros(())
            x_D = memory.embed(x_TE[t])
            evicted = 0
            for layer in range(memory.n_layers):
                evicted += self.forget(layer, t)
                z_D = memory.layer(layer).norm(x_D)
                self.kept[layer].append(Kept(t, z_D))
                x_D = x_D + self.read(layer, t, z_D)
                x_D = x_D + memory.layer(layer).ffn(x_D)
            ys.append(memory.final_norm(x_D))
            lives.append([len(ms) - 1 for ms in self.kept])
            evictions.append(evicted)
        return Played(torch.stack(ys[begin:]), self.penalty, lives[begin:], evictions[begin:])

    def span(self, layer: int, hidden_D: Tensor) -> Tensor:
        """e = L * sigmoid((w . h + b) / tau), cut to the limit drawn in training."""
        predictor = self.memory.span_predictor
        logit = (predictor.weight_LD[layer] * hidden_D).sum() + predictor.bias_L[layer]
        return (predictor.max_span / (1 + torch.exp(-logit / predictor.temperature))).clamp(
            max=self.limit
        )

    @torch.no_grad()
    def forget(self, layer: int, t: int) -> int:
        """Delete what has expired, then what is over the bound, the least remaining span first."""
        remaining = {
            m: float(self.span(layer, m.hidden_D)) - (t - m.born) for m in self.kept[layer]
        }
        alive = [m for m in self.kept[layer] if remaining[m] > -self.ramp]
        bound, evicted = self.memory.max_live, 0
        while bound is not None and len(alive) > bound - 1:
            alive.remove(min(alive, key=lambda m: remaining[m]))
            evicted += 1
        self.kept[layer] = alive
        return evicted

    def read(self, layer: int, t: int, z_D: Tensor) -> Tensor:
        """a'_ti = m_ti a_ti / (1 + sum_j m_tj a_tj) over the steps before, for every head."""
        attention: Any = self.memory.layer(layer).attention
        masks, ages = [], []
        for m in self.kept[layer]:
            age = t - m.born
            if age == 0:
                continue
            mask = 1 + (self.span(layer, m.hidden_D) - age) / self.ramp
            if 0 < mask < 1:
                self.penalty = self.penalty + mask - 1  # r / R
            masks.append(mask.clamp(max=1))
            ages.append(age)
        if not ages:
            return torch.zeros_like(z_D)
        hidden_ND = torch.stack([m.hidden_D for m in self.kept[layer] if m.born < t])
        w_key_DD, w_value_DD = attention.key_value.weight.chunk(2)
        age_N1 = torch.tensor(ages).to(z_D)[:, None]
        heads, d = [], len(z_D) // attention.n_heads
        for h in range(attention.n_heads):
            rows = slice(h * d, (h + 1) * d)
            q_d = attention.query.weight[rows] @ z_D
            logit_N = (hidden_ND @ w_key_DD[rows].T) @ q_d / d**0.5
            logit_N = (
                logit_N + torch.exp(-age_N1 / 4.0 ** torch.arange(8)) @ attention.age_mix_HJ[h]
            )
            a_N = torch.exp(logit_N) * torch.stack(masks)
            heads.append((a_N / (1 + a_N.sum())) @ (hidden_ND @ w_value_DD[rows].T))
        return attention.out(torch.cat(heads))  # type: ignore[no-any-return]


@for_all_options
def test_steps_follow_the_equations(options: dict[str, Any]) -> None:
    memory, (x_BTE, starts_BT) = build(**options), draw(3, 45)
    state, ys, lives = memory.shorten(memory.initial_state(3)), [], []
    for t in range(45):
        y_BD, state = memory.step(x_BTE[:, t], state, starts_BT[:, t])
        ys.append(y_BD)
        lives.append(memory.live(state).count_BL() - 1)
    for i in range(3):
        played = Reference(memory, state.limit_B[i]).play(x_BTE[i], starts_BT[i])
        torch.testing.assert_close(torch.stack(ys, 1)[i], played.y_TD, rtol=0, atol=1e-9)
        assert torch.stack(lives, 1)[i].tolist() == played.live_TL
        last_start = max([0, *starts_BT[i].nonzero()[:, 0].tolist()])
        assert int(state.evicted_B[i]) == sum(played.evicted_T[last_start:])


@pytest.mark.parametrize("begin", [0, 20])
@for_all_options
def test_unroll_and_its_gradients_follow_the_equations(options: dict[str, Any], begin: int) -> None:
    memory, (x_BTE, starts_BT) = build(**options), draw(3, 45)
    state = memory.shorten(memory.initial_state(3))
    if begin:
        state = memory.unroll(x_BTE[:, :begin], state, starts_BT[:, :begin])[1]
    x_BTE.requires_grad_()
    y_BTD, after, aux = memory.unroll(x_BTE[:, begin:], state, starts_BT[:, begin:])
    assert aux.span_BTL is not None  # as predicted, whatever `shorten` makes of it
    torch.testing.assert_close(aux.span_BTL[:, -1], memory.spans_at_birth(after))
    played = [
        Reference(memory, state.limit_B[i]).play(x_BTE[i], starts_BT[i], begin) for i in range(3)
    ]
    expected_BTD = torch.stack([p.y_TD for p in played])
    torch.testing.assert_close(y_BTD, expected_BTD, rtol=0, atol=1e-9)
    assert aux.live_BTL is not None and aux.evicted_B is not None
    assert aux.live_BTL.tolist() == [p.live_TL for p in played]
    assert aux.evicted_B.tolist() == [sum(p.evicted_T) for p in played]
    expected_loss = torch.stack([p.penalty for p in played]).sum() / (3 * (45 - begin))
    torch.testing.assert_close(aux.span_loss, expected_loss, rtol=0, atol=1e-9)

    weights_BTD = torch.arange(y_BTD.numel(), dtype=torch.float64).view_as(y_BTD).cos()
    wanted = [x_BTE, *memory.parameters()]
    for of in ("outputs", "span loss"):
        ours, theirs = (
            torch.autograd.grad(
                (y * weights_BTD).sum() if of == "outputs" else loss,
                wanted,
                allow_unused=True,
                materialize_grads=True,
                retain_graph=True,
            )
            for y, loss in ((y_BTD, aux.span_loss), (expected_BTD, expected_loss))
        )
        assert any(grad.any() for grad in ours)
        for left, right in zip(ours, theirs, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-9)


# the span predictor


def predictor_gradient(carried: int, segment: int, of: str) -> Tensor:
    """Of the span predictor's weights after a segment that follows `carried` steps; a span of 10.5
    for every memory, a ramp of 5."""
    memory = build(random_spans=False, **SMALL, max_span=50, ramp=5, initial_span=0.21)
    x_BTE, starts_BT = draw(2, carried + segment, p_start=0.0)
    _, state, _ = memory.unroll(x_BTE[:, :carried], memory.initial_state(2), starts_BT[:, :carried])
    y_BTD, _, aux = memory.unroll(x_BTE[:, carried:], state, starts_BT[:, carried:])
    loss = aux.span_loss if of == "span loss" else (y_BTD[..., 0] ** 2).sum()
    (grad_LD,) = torch.autograd.grad(loss, memory.span_predictor.weight_LD)
    return grad_LD


@pytest.mark.parametrize("of", ["outputs", "span loss"])
def test_span_predictor_learns_from_memories_older_than_the_segment(of: str) -> None:
    # a segment of one step has no memory of its own on the ramp: ages 11 to 14 are all carried
    assert predictor_gradient(carried=30, segment=1, of=of).abs().amax(1).min() > 1e-6
    assert predictor_gradient(carried=11, segment=1, of=of).abs().amax(1).min() > 1e-6


@pytest.mark.parametrize("of", ["outputs", "span loss"])
def test_span_predictor_learns_nothing_from_memories_off_the_ramp(of: str) -> None:
    assert not predictor_gradient(carried=10, segment=1, of=of).any()
    assert not predictor_gradient(carried=4, segment=6, of=of).any()


@pytest.mark.parametrize(("max_span", "initial_span"), [(512.0, 0.5), (65536.0, 0.01), (9.0, 0.9)])
@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_spans_start_as_the_options_say(
    max_span: float, initial_span: float, temperature: float
) -> None:
    memory = build(
        random_spans=False,
        **SMALL,
        max_span=max_span,
        initial_span=initial_span,
        temperature=temperature,
    )
    x_BTE, starts_BT = draw(2, 5)
    span_BTL = memory.unroll(x_BTE, memory.initial_state(2), starts_BT)[2].span_BTL
    assert span_BTL is not None
    expected_BTL = torch.full((2, 5, 2), max_span * initial_span, dtype=torch.float64)
    torch.testing.assert_close(span_BTL, expected_BTL, rtol=1e-6, atol=0)


# capacity


def test_capacity_holds_and_the_least_remaining_spans_go() -> None:
    # spans of hundreds of steps: in 40 steps only the capacity of 6 deletes anything
    options = {**SMALL, "n_layers": 1, "max_span": 5000, "ramp": 5, "max_live": 6}
    memory, (x_BTE, starts_BT) = build(**options), draw(3, 40, p_start=0.0)
    _, state, aux = memory.unroll(x_BTE, memory.initial_state(3), starts_BT)
    assert aux.span_BTL is not None and aux.evicted_B is not None and aux.live_BTL is not None
    assert float(aux.span_BTL.min()) > 40
    ends_BT = aux.span_BTL[..., 0] + torch.arange(40)
    for i in range(3):
        # a memory once evicted never comes back: follow the list by hand
        held: list[int] = []
        for t in range(40):
            if len(held) == 6:
                held.remove(min(held, key=lambda born: float(ends_BT[i, born])))
            assert int(aux.live_BTL[i, t, 0]) == len(held)
            held.append(t)
        ages = memory.live(state).age_BLS[i, 0]
        assert sorted(39 - int(age) for age in ages[ages.isfinite()]) == held
    assert aux.evicted_B.tolist() == [40 - 6] * 3 and state.evicted_B.tolist() == [40 - 6] * 3


def test_nothing_is_evicted_while_there_is_room() -> None:
    memory, (x_BTE, starts_BT) = build(**EXPIRING, max_live=40), draw(3, 60)
    _, state, aux = memory.unroll(x_BTE, memory.initial_state(3), starts_BT)
    assert aux.evicted_B is not None and aux.evicted_B.tolist() == [0] * 3
    unbounded = build(**EXPIRING)
    y_BTD, _, _ = unbounded.unroll(x_BTE, unbounded.initial_state(3), starts_BT)
    assert torch.equal(y_BTD, memory.unroll(x_BTE, memory.initial_state(3), starts_BT)[0])
    assert state.evicted_B.tolist() == [0] * 3


@pytest.mark.parametrize("bound", [5, 17])
def test_a_bound_that_sets_in_later_drops_what_is_over_it(bound: int) -> None:
    """From a state with more memories than it allows, acting and learning agree."""
    options = {**EXPIRING, "max_span": 60, "max_live": bound, "max_live_from": 0.5}
    memory, (x_BTE, starts_BT) = build(**options), draw(3, 80, p_start=0.02)
    starts_BT[:, 40:] = False
    starts_BT[0, 40] = True  # one episode begins as the bound does: nothing is dropped
    memory.set_progress(0.49)
    _, before, aux = memory.unroll(x_BTE[:, :40], memory.initial_state(3), starts_BT[:, :40])
    assert aux.evicted_B is not None and aux.evicted_B.tolist() == [0] * 3
    assert (memory.live(before).count_BL()[1:] > bound).all()
    with torch.no_grad():  # those that the next step would find alive
        ends_BLS = memory.spans(before.hidden_BLSD, slice(None)) + memory.ramp
    alive_BL = (ends_BLS > before.age_BLS + 1).sum(-1)

    memory.set_progress(0.5)
    y_BTD, after, aux = memory.unroll(x_BTE[:, 40:], before, starts_BT[:, 40:])
    assert aux.live_BTL is not None and int(aux.live_BTL.max()) == bound - 1
    state, ys = before, []
    for t in range(40, 80):
        y_BD, state = memory.step(x_BTE[:, t], state, starts_BT[:, t])
        ys.append(y_BD)
        if t == 40:
            assert state.evicted_B.tolist() == [0, *(alive_BL[1:] - bound + 1).sum(1).tolist()]
    torch.testing.assert_close(torch.stack(ys, 1), y_BTD)
    assert state.evicted_B.tolist() == after.evicted_B.tolist()
    assert memory.live(state).count_BL().tolist() == memory.live(after).count_BL().tolist()


# the equations and the losses of our own, by hand


def test_soft_mask_by_hand() -> None:
    ages = torch.tensor([0.0, 5.0, 6.0, 7.0, 8.0, 9.0, 20.0])
    expected = torch.tensor([1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0])
    spans = torch.full((7,), 5.0, requires_grad=True)
    mask = soft_mask(spans, ages, ramp=4)
    assert torch.equal(mask, expected)
    (slope,) = torch.autograd.grad(mask.sum(), spans)
    assert slope[[0, 6]].tolist() == [0.0, 0.0] and slope[2:5].tolist() == [0.25] * 3
    assert soft_mask(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 4.0]), 2.0).tolist() == [
        [0.0, 0.0],
        [0.5, 0.0],
    ]


def test_span_penalty_by_hand() -> None:
    # spans 5 and 2, ramp 4; at the first step ages 6 and 1, then 7 and 2, then 8 and 3
    spans = torch.tensor([5.0, 2.0], requires_grad=True)
    ages = torch.tensor([[6.0, 1.0], [7.0, 2.0], [8.0, 3.0]])
    visible = torch.ones(3, 2, dtype=torch.bool)
    penalty = span_penalty(spans, ages, 4.0, visible)
    assert float(penalty.detach()) == pytest.approx((-1 - 2 - 3 - 1) / 4)
    (slope,) = torch.autograd.grad(penalty, spans)
    assert slope.tolist() == [0.75, 0.25]
    visible[1] = False
    assert float(span_penalty(spans.detach(), ages, 4.0, visible)) == pytest.approx(
        (-1 - 3 - 1) / 4
    )


def test_a_memory_pays_about_one_over_its_whole_ramp() -> None:
    spans, ages = torch.tensor([7.3], requires_grad=True), torch.arange(1.0, 60.0)[:, None]
    penalty = span_penalty(spans, ages, 16.0, torch.ones(59, 1, dtype=torch.bool))
    assert float(torch.autograd.grad(penalty, spans)[0]) == pytest.approx(1.0)


def test_shrinking_by_hand() -> None:
    spans = torch.tensor([0.0, 1.0, 3.0, 99.0], requires_grad=True)
    loss = shrink_loss(spans)
    torch.testing.assert_close(loss, torch.tensor([1.0, 2.0, 4.0, 100.0]).log())
    (slope,) = torch.autograd.grad(loss.sum(), spans)
    torch.testing.assert_close(slope, torch.tensor([1.0, 0.5, 0.25, 0.01]))


def test_spans_at_the_limit_still_feel_a_force() -> None:
    # of the logit, where the sigmoid is flat
    logits = torch.tensor([5.0, 8.0, 12.0], requires_grad=True)
    spans = 64 * logits.sigmoid()
    (slope,) = torch.autograd.grad((shrink_loss(spans) + limit_loss(spans, 64.0)).sum(), logits)
    assert (slope - 1).abs().max() < 0.02
    assert torch.isfinite(limit_loss(torch.tensor([64.0, 0.0]), 64.0)).all()
    assert not limit_loss(torch.tensor([3.0, 500.0]), math.inf).any()

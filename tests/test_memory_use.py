"""Which memories count as used, and what their use asks of their spans."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import expire_span.memory.attention
from expire_span.memory import MEMORIES, Memory, Read, make_memory, use_loss
from expire_span.memory.use import influences

MAX_SPAN = 1000.0


def read_of(spans: Tensor, ages_CW: Tensor, attention_CW: Tensor) -> Read:
    """One environment, one stretch of two steps, one head."""
    attention_MHCW = attention_CW[None, None].requires_grad_()
    return Read(spans[None, None], attention_MHCW, ages_CW[None, None], MAX_SPAN, 2)


def size(span: float) -> float:
    return math.log1p(span) - math.log1p(-span / MAX_SPAN)


def test_use_by_attention_by_hand() -> None:
    # read at age 7, long enough already, looked at too little
    spans = torch.tensor([5.0, 90.0, 5.0], requires_grad=True)
    ages = torch.tensor([[6.0, 9.0, 4.0], [7.0, 10.0, 5.0]])
    attention = torch.tensor([[0.1, 0.6, 0.29], [0.9, 0.6, 0.29]])
    loss = use_loss([read_of(spans, ages, attention)], None)
    assert float(loss.detach()) == pytest.approx(math.log(15 / 6) / 2)
    (slope,) = torch.autograd.grad(loss, spans)
    assert slope[0] < 0 and slope[1:].tolist() == [0.0, 0.0]


def test_use_by_influence_by_hand() -> None:
    # preferences 8 and 2, mean size 5: a memory is needed from an influence of 0.5, whatever its
    # sign and however little it is attended to
    spans = torch.full((3,), 5.0, requires_grad=True)
    ages = torch.tensor([[6.0, 9.0, 4.0], [7.0, 10.0, 5.0]])
    attention = torch.tensor([[0.0, 0.9, 0.1], [0.5, 0.3, 0.2]])
    slopes = torch.tensor([[9.0, 0.5, -7.0], [1.0, -1.6, 1.5]])
    read = read_of(spans, ages, attention)
    influence = torch.tensor([[0.0, 0.45, 0.7], [0.5, 0.48, 0.3]])
    owed = (slopes * read.attention_MHCW[0, 0]).sum(-1)
    preference_BT = (owed - owed.detach() + torch.tensor([8.0, 2.0]))[None]
    torch.testing.assert_close(influences([read], preference_BT)[0][0, 0], influence)
    loss = use_loss([read], preference_BT)
    # needed at ages 7 and 4: spans of 14 and 8 are asked for
    expected = size(14) + size(8) - 2 * size(5)
    assert float(loss.detach()) == pytest.approx(expected / 2)
    (slope,) = torch.autograd.grad(loss, spans)
    assert slope[0] < 0 and slope[1] == 0 and slope[2] < 0


def test_without_any_preference_nothing_is_in_use() -> None:
    spans = torch.full((3,), 5.0, requires_grad=True)
    read = read_of(spans, torch.full((2, 3), 9.0), torch.full((2, 3), 0.3))
    preference_BT = (0.0 * read.attention_MHCW).sum() * torch.ones(1, 2)
    assert use_loss([read], preference_BT) == 0


def test_no_more_is_asked_for_than_a_span_can_reach() -> None:
    ages = torch.full((2, 1), 0.8 * MAX_SPAN)
    for span, asked in ((0.85 * MAX_SPAN, True), (0.95 * MAX_SPAN, False)):
        read = read_of(torch.tensor([span]), ages, torch.ones(2, 1))
        preference_BT = read.attention_MHCW[0, 0].sum(-1)[None]
        assert bool(use_loss([read], preference_BT) > 0) == asked


def memory_and_read(name: str) -> tuple[Memory, Tensor, tuple[Read, ...]]:
    torch.manual_seed(0)
    memory = make_memory(name, dim_in=5)
    x_BTE, starts_BT = torch.randn(2, 40, 5), torch.zeros(2, 40, dtype=torch.bool)
    starts_BT[0, 11] = True
    y_BTD, _, aux = memory.unroll(x_BTE, memory.initial_state(2), starts_BT)
    return memory, y_BTD[..., 0], aux.reads


@pytest.mark.parametrize("name", MEMORIES)
def test_only_spans_of_single_memories_learn_from_use(name: str) -> None:
    _, _, reads = memory_and_read(name)
    assert len(reads) == (2 if name == "expire-span" else 0)


def test_steps_that_fill_up_a_stretch_read_what_the_last_step_reads() -> None:
    torch.manual_seed(0)
    memory = make_memory("expire-span", dim_in=4, width=8, n_heads=2, ramp=60)
    with torch.no_grad():
        memory.layers[0].attention.age_mix_HJ.normal_(std=3)  # type: ignore[index, union-attr]
    starts_BT = torch.zeros(3, 40, dtype=torch.bool)
    aux = memory.unroll(torch.randn(3, 40, 4), memory.initial_state(3), starts_BT)[2]
    last_BHCW = aux.reads[0].attention_MHCW[1::2]  # steps 32 to 39, and 24 more
    torch.testing.assert_close(last_BHCW[:, :, 8:], last_BHCW[:, :, 7:8].expand(-1, -1, 24, -1))


def test_influence_counts_what_could_be_read_and_nothing_else() -> None:
    _, preference_BT, reads = memory_and_read("expire-span")
    for read, influence in zip(reads, influences(reads, preference_BT), strict=True):
        hidden = (read.attention_MHCW == 0).all(1).view_as(influence)
        assert torch.isfinite(influence).all()
        assert not influence[hidden].any() and influence[~hidden].any()


def test_influence_leaves_the_gradients_of_the_weights_alone() -> None:
    memory, preference_BT, reads = memory_and_read("expire-span")
    use_loss(reads, preference_BT)
    assert all(weight.grad is None for weight in memory.parameters())
    preference_BT.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("layer", [0, 1])
def test_influence_is_what_is_lost_with_what_was_read(
    layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a difference: the same unroll with a memory's attention scaled down a little."""
    torch.manual_seed(0)
    memory = make_memory("expire-span", dim_in=5).double()
    x_BTE = torch.randn(1, 6, 5, dtype=torch.float64)
    starts_BT = torch.zeros(1, 6, dtype=torch.bool)
    step, key, little = 3, 1, 1e-6
    plain = expire_span.memory.attention.softmax_or_nothing
    calls: list[int] = []

    def faded(logits: Tensor) -> Tensor:
        attention = plain(logits)
        calls.append(1)
        if len(calls) != layer + 1:
            return attention
        scale = torch.ones_like(attention)
        scale[:, :, step, key] -= little
        return attention * scale

    def unroll() -> tuple[Tensor, tuple[Read, ...]]:
        y_BTD, _, aux = memory.unroll(x_BTE, memory.initial_state(1), starts_BT)
        return y_BTD[..., 0], aux.reads

    preference_BT, reads = unroll()
    influence_CW = influences(reads, preference_BT)[layer][0, 0]
    monkeypatch.setattr(expire_span.memory.attention, "softmax_or_nothing", faded)
    less_BT, _ = unroll()
    lost = (preference_BT - less_BT).sum().abs().detach() / little
    torch.testing.assert_close(influence_CW[step, key], lost, rtol=1e-4, atol=1e-9)
    assert lost > 1e-3

"""Adaptive-span against its paper's equations, written out head by head with nothing deleted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from expire_span.memory import AdaptiveSpan, AdaptiveSpanConfig

E, T, MAX_SPAN = 5, 40, 20.0


def build(fractions: list[list[float]]) -> AdaptiveSpan:
    """In double precision, so that a difference is a mistake."""
    torch.manual_seed(0)
    config = AdaptiveSpanConfig(
        width=12, n_layers=2, n_heads=3, ffn_width=20, max_span=MAX_SPAN, ramp=6
    )
    memory = AdaptiveSpan(E, config).double()
    with torch.no_grad():
        memory.fraction_LH.copy_(torch.tensor(fractions))
        for layer in memory.layers:
            layer.attention.age_mix_HJ.normal_()  # type: ignore[operator, union-attr]
    return memory


def reference(memory: AdaptiveSpan, x_TE: Tensor) -> Tensor:
    """One episode: m_z(age) = min(max((R + z - age) / R, 0), 1) weighs every earlier step."""
    x_TD = memory.embed(x_TE)
    steps_T = torch.arange(len(x_TE), dtype=x_TE.dtype)
    age_TK = steps_T[:, None] - steps_T
    decay_TKJ = torch.exp(-age_TK.clamp(min=0)[..., None] / 4.0 ** torch.arange(8))
    for layer in range(memory.n_layers):
        attention: Any = memory.layer(layer).attention
        z_TD = memory.layer(layer).norm(x_TD)
        w_key_DD, w_value_DD = attention.key_value.weight.chunk(2)
        heads, d = [], z_TD.shape[1] // attention.n_heads
        for h in range(attention.n_heads):
            rows = slice(h * d, (h + 1) * d)
            q_Td, k_Kd = z_TD @ attention.query.weight[rows].T, z_TD @ w_key_DD[rows].T
            logit_TK = q_Td @ k_Kd.T / d**0.5 + decay_TKJ @ attention.age_mix_HJ[h]
            span = memory.max_span * memory.fraction_LH[layer, h]
            mask_TK = ((memory.ramp + span - age_TK) / memory.ramp).clamp(0, 1) * (age_TK > 0)
            a_TK = torch.exp(logit_TK) * mask_TK
            heads.append((a_TK / (1 + a_TK.sum(1, keepdim=True))) @ (z_TD @ w_value_DD[rows].T))
        x_TD = x_TD + attention.out(torch.cat(heads, 1))
        x_TD = x_TD + memory.layer(layer).ffn(x_TD)
    return memory.final_norm(x_TD)  # type: ignore[no-any-return]


# spans that are no whole steps: at the corners of the mask a gradient has two values
@pytest.mark.parametrize(
    "fractions", [[[0.11, 0.53, 0.92]] * 2, [[0.02, 0.02, 0.33], [0.97, 0.61, 0.23]]]
)
def test_outputs_and_gradients_follow_the_equations(fractions: list[list[float]]) -> None:
    memory = build(fractions)
    x_BTE = torch.randn(2, T, E, dtype=torch.float64)
    starts_BT = torch.zeros(2, T, dtype=torch.bool)
    y_BTD, _, _ = memory.unroll(x_BTE, memory.initial_state(2), starts_BT)
    expected_BTD = torch.stack([reference(memory, x_TE) for x_TE in x_BTE])
    torch.testing.assert_close(y_BTD, expected_BTD, rtol=0, atol=1e-9)
    weights_BTD = torch.randn_like(y_BTD)
    parameters = list(memory.parameters())
    ours = torch.autograd.grad((y_BTD * weights_BTD).sum(), parameters)
    theirs = torch.autograd.grad((expected_BTD * weights_BTD).sum(), parameters)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-9)


def test_a_memory_lives_as_long_as_the_longest_head_reads_it() -> None:
    memory = build([[0.1, 0.5, 0.0], [0.2, 0.2, 0.9]])  # of 20 steps, and a ramp of 6
    x_BTE = torch.randn(1, T, E, dtype=torch.float64)
    state = memory.unroll(x_BTE, memory.initial_state(1), torch.zeros(1, T, dtype=torch.bool))[1]
    assert memory.live(state).count_BL().tolist() == [[16, 24]]  # ages 0 to z + R - 1


def test_spans_pay_from_beyond_the_longest_down_to_zero_and_no_further() -> None:
    memory = build([[-0.3, 0.0, 0.5], [0.25, 1.0, 1.2]])
    x_BTE = torch.randn(1, T, E, dtype=torch.float64)
    starts_BT = torch.zeros(1, T, dtype=torch.bool)
    y_BTD, _, aux = memory.unroll(x_BTE, memory.initial_state(1), starts_BT)
    assert float(aux.span_loss.detach()) == pytest.approx(10 / 3 + (5 + 20 + 20) / 3)
    (slope_LH,) = torch.autograd.grad(aux.span_loss, memory.fraction_LH, retain_graph=True)
    share = MAX_SPAN / 3
    assert slope_LH.flatten().tolist() == pytest.approx([0] + 5 * [share])
    (task_LH,) = torch.autograd.grad(y_BTD[0, -1, 0], memory.fraction_LH)
    assert task_LH[0, 0] != 0, "a head whose span has shrunk to 0 must be able to come back"

"""What all transformer memories are made of: attention that may read nothing, and gates."""

from __future__ import annotations

import pytest
import torch

from expire_span.memory import make_memory
from expire_span.memory.attention import (
    FeedForward,
    MemoryAttention,
    initialise,
    softmax_or_nothing,
)
from expire_span.memory.stack import GRUGate

TRANSFORMERS = ["expire-span", "transformer-xl", "adaptive-span", "compressive", "none"]


def test_attention_adds_up_to_less_than_one_and_to_nothing_where_nothing_fits() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [-50.0, -50.0, -50.0], [50.0, 0.0, 0.0]])
    sums = softmax_or_nothing(logits).sum(-1)
    torch.testing.assert_close(sums, torch.tensor([0.75, 0.0, 1.0]))
    hidden = torch.full((1, 3), -torch.inf)
    assert softmax_or_nothing(hidden).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_first_step_of_an_episode_reads_nothing(name: str) -> None:
    torch.manual_seed(0)
    memory = make_memory(name, dim_in=4)
    x_BE, starts_B = torch.randn(3, 4), torch.ones(3, dtype=torch.bool)
    first_BD, _ = memory.step(x_BE, memory.initial_state(3), starts_B)
    for layer in memory.layers:  # type: ignore[union-attr]
        layer.attention.out.weight.data.zero_()
    without_BD, _ = memory.step(x_BE, memory.initial_state(3), starts_B)
    torch.testing.assert_close(first_BD, without_BD)


def test_steps_first_read_what_is_like_them() -> None:
    shares = []
    for seed in range(20):
        torch.manual_seed(seed)
        attention = MemoryAttention(64, 4)
        initialise(attention, FeedForward(64, 8))
        z_11D = torch.nn.functional.layer_norm(torch.randn(1, 1, 64), (64,))
        others_1KD = torch.nn.functional.layer_norm(torch.randn(1, 9, 64), (64,))
        ages_11K, mask_11K = torch.ones(1, 1, 10), torch.zeros(1, 1, 10)
        _, attention_1H1K = attention.read_dense(
            z_11D, torch.cat([z_11D, others_1KD], 1), ages_11K, mask_11K
        )
        shares.append(attention_1H1K[..., 0].max().item())
    assert sum(share > 0.5 for share in shares) >= 18


def test_gates_begin_close_to_the_identity() -> None:
    torch.manual_seed(0)
    gate = GRUGate(16)
    x, y = torch.randn(100, 16), torch.randn(100, 16)
    change = (gate(x, y) - x).norm() / x.norm()
    assert 0 < change < 0.3


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_gates_are_an_option_of_every_transformer(name: str) -> None:
    plain, gated = (make_memory(name, dim_in=4, gated=gated) for gated in (False, True))
    names = {key for key, _ in gated.named_parameters()} - {k for k, _ in plain.named_parameters()}
    assert len(names) == 2 * 2 * 4  # two layers, two gates of four parameters each

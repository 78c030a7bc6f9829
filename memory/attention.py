"""Attention over memories: the keys of a stretch of a segment, or a few slots for one step.

Both readings share the parameters and the arithmetic; `SlotTransformer` decides what is visible.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_AGE_SCALES = 8
"""Position enters the logits as a learned mix of exp(-age / tau), tau = 1, 4, 16, ... 4^7 = 16,384
steps. Ages beyond a few times the last are hardly told apart: all their exponentials are near 0."""

LEAST_EXPONENT = -80.0
"""exp(-80) is 2e-35; below, floats become denormal and exp takes seven times as long on a CPU."""

QUERY_GAIN = 2.0
"""Standard deviation of the attention logits at initialisation."""


def age_decay(age_X: Tensor) -> Tensor:
    """exp(-age / tau) of ages in steps, (X, J); next to 0, not 0, at an age of inf."""
    scales_J = 4.0 ** torch.arange(N_AGE_SCALES, device=age_X.device, dtype=age_X.dtype)
    return torch.exp((-age_X[..., None] / scales_J).clamp(min=LEAST_EXPONENT))


class MemoryAttention(nn.Module):
    """Multi-head attention of each step to the memories it may read.

    A step does not attend to itself, which the residual stream has anyway, and may attend to
    nothing: beside the memories stands one with logit 0 and value 0. So where no memory fits little
    is read, and a step without memories reads 0.

    Position is the age alone, so it needs nothing of deleted neighbours: head h adds
    sum_j c_hj exp(-age / tau_j) to its logits. An exponential of a difference is a product, so for
    a stretch of steps this is J more columns of query and key, and costs no (H, T, K) tensor.

    Memories are kept as the vectors this layer was given, never as keys and values: `read_slots`
    moves the key projection onto the query and the value projection behind the sum, so acting
    projects one token whatever the number of live memories, and no cached key can be stale.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        if width % n_heads:
            raise ValueError(
                f"width = {width} is not a multiple of n_heads = {n_heads}; "
                f"use {max(1, width // n_heads) * n_heads} or another number of heads"
            )
        self.n_heads = n_heads
        self.scale = (width // n_heads) ** -0.5
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.age_mix_HJ = nn.Parameter(torch.zeros(n_heads, N_AGE_SCALES))

    def queries(self, z_BQD: Tensor, time_NQ: Tensor) -> Tensor:
        """Query vectors with the position columns, (B, H, Q, d + J); the N stretches take turns in
        B; time in steps, from an origin not further than about 60 steps away, beyond which exp
        overflows."""
        B, Q, _ = z_BQD.shape
        q_BHQd = (self.query(z_BQD) * self.scale).view(B, Q, self.n_heads, -1).transpose(1, 2)
        if (time_NQ == time_NQ[:1]).all():  # no stretch is filled up
            position_HQJ = self.age_mix_HJ[:, None] * age_decay(time_NQ[0])
            return torch.cat([q_BHQd, position_HQJ.expand(B, -1, -1, -1)], dim=-1)
        position_NHQJ = self.age_mix_HJ[:, None] * age_decay(time_NQ)[:, None]
        position_BHQJ = position_NHQJ.repeat(B // len(time_NQ), 1, 1, 1)
        return torch.cat([q_BHQd, position_BHQJ], dim=-1)

    def keys_values(self, memories_BKD: Tensor) -> Tensor:
        """Keys and values of memories, without position. (B, K, 2 D)."""
        return self.key_value(memories_BKD)  # type: ignore[no-any-return]

    def read(
        self, q_BHQx: Tensor, kv_BWY: Tensor, birth_BW: Tensor, log_mask_BHQW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the queries read from W keys born at `birth` (steps from the queries' origin).

        `log_mask`, one for all heads or one for each, is -inf where a key cannot be read.
        Returns (B, Q, D) and the attention, (B, H, Q, W).
        """
        B, H, Q, _ = q_BHQx.shape
        k_BHWd, v_BHWd = kv_BWY.view(B, -1, 2, H, kv_BWY.shape[-1] // (2 * H)).permute(
            2, 0, 3, 1, 4
        )
        decay_BHWJ = age_decay(-birth_BW)[:, None].expand(-1, H, -1, -1)
        k_BHWx = torch.cat([k_BHWd, decay_BHWJ], dim=-1)
        logits_BHQW = q_BHQx @ k_BHWx.transpose(-1, -2) + log_mask_BHQW
        attention_BHQW = softmax_or_nothing(logits_BHQW)
        y_BHQd = attention_BHQW @ v_BHWd
        return self.out(y_BHQd.transpose(1, 2).reshape(B, Q, -1)), attention_BHQW

    def read_dense(
        self, z_BQD: Tensor, memories_BKD: Tensor, age_BQK: Tensor, log_mask_BQK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What `read` gives, from ages that follow no pattern. Takes (B, Q, K, J) numbers.

        Returns (B, Q, D) and the attention, (B, H, Q, K), no gradient.
        """
        position_BQKH = age_decay(age_BQK) @ self.age_mix_HJ.T
        bias_BHQK = position_BQKH.permute(0, 3, 1, 2) + log_mask_BQK[:, None]
        return self(z_BQD, memories_BKD, bias_BHQK)  # type: ignore[no-any-return]

    def read_content(self, z_BQD: Tensor, memories_BKD: Tensor, readable_BQK: Tensor) -> Tensor:
        """What is read by content alone, with the parameters as constants. Returns (B, Q, D)."""
        bias_B1QK = torch.where(readable_BQK, 0.0, -torch.inf).to(z_BQD)[:, None]
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        read_BQD, _ = torch.func.functional_call(self, frozen, (z_BQD, memories_BKD, bias_B1QK))
        return read_BQD  # type: ignore[no-any-return]

    def forward(self, z_BQD: Tensor, memories_BKD: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """What each step reads with a bias (B, H, Q, K) on its logits, and its attention."""
        B, Q, D = z_BQD.shape
        heads = (B, -1, self.n_heads, D // self.n_heads)
        q_BHQd = (self.query(z_BQD) * self.scale).view(heads).transpose(1, 2)
        key_BKD, value_BKD = self.key_value(memories_BKD).chunk(2, -1)
        k_BHKd, v_BHKd = (part.reshape(heads).transpose(1, 2) for part in (key_BKD, value_BKD))
        attention_BHQK = softmax_or_nothing(q_BHQd @ k_BHKd.transpose(-1, -2) + bias)
        y_BQD = (attention_BHQK @ v_BHKd).transpose(1, 2).reshape(B, Q, D)
        return self.out(y_BQD), attention_BHQK.detach()

    def read_slots(
        self, z_BD: Tensor, memories_BSD: Tensor, decay_BSJ: Tensor, log_mask_BHS: Tensor
    ) -> Tensor:
        """One step of every environment: what `read` gives for one query.

        `decay` is the memories' `age_decay`.
        """
        B, D = z_BD.shape
        H = self.n_heads
        w_key_HdD, w_value_HdD = self.key_value.weight.view(2, H, D // H, D)
        bias_BHS = torch.matmul(self.age_mix_HJ, decay_BSJ.transpose(1, 2)) + log_mask_BHS
        q_HBd = self.query(z_BD).view(B, H, -1).transpose(0, 1)
        q_BHD = torch.bmm(q_HBd, w_key_HdD).transpose(0, 1)
        logits_BHS = torch.baddbmm(bias_BHS, q_BHD, memories_BSD.transpose(1, 2), alpha=self.scale)
        read_BHD = torch.bmm(softmax_or_nothing(logits_BHS), memories_BSD)
        y_HBd = torch.bmm(read_BHD.transpose(0, 1), w_value_HdD.transpose(1, 2))
        return self.out(y_HBd.transpose(0, 1).reshape(B, D))  # type: ignore[no-any-return]


def softmax_or_nothing(logits: Tensor) -> Tensor:
    """exp(a_j) / (1 + sum_k exp(a_k)): a softmax over the last axis and one more logit, 0."""
    return F.pad(logits, (1, 0)).softmax(-1)[..., 1:]


class FeedForward(nn.Sequential):
    """The position-wise half of a transformer layer, normalised input, one hidden layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )


@torch.no_grad()
def initialise(attention: MemoryAttention, ffn: FeedForward) -> None:
    """Orthogonal weights, as in SB3, and sharp queries that look for likeness.

    With torch's default weights the first logits are within +-0.3, so each of N memories gets a
    share of 1/N, the one that matters too. Here they spread by +-2, some head happens to favour
    it, and reinforcement learning, which sees few decisions, has a gradient to start from. And a
    step's query begins as half its own key, so that memories of steps like it are read more: "what
    was it like the last time I was here" need not be learned (docs/experiments/portal.md).
    """
    key, value = attention.key_value.weight.chunk(2)
    for weight in (key, value, attention.query.weight):
        nn.init.orthogonal_(weight)
    attention.query.weight.add_(key).mul_(QUERY_GAIN / math.sqrt(2))
    nn.init.orthogonal_(attention.out.weight)
    into, back = (module for module in ffn if isinstance(module, nn.Linear))
    nn.init.orthogonal_(into.weight, gain=math.sqrt(2))
    nn.init.orthogonal_(back.weight)
    for linear in (into, back):
        nn.init.zeros_(linear.bias)

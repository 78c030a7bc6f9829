"""A pre-norm transformer whose layers keep past inputs in slots and read them by attention.

How long a memory is kept, its *span*, is the one thing sub-classes decide: predicted from the
memory itself (`ExpireSpan`), learned for each head (`AdaptiveSpan`), or a constant (`FixedWindow`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import age_decay
from .contract import Aux, LiveMemories, Read
from .segment import (
    Keys,
    Stretches,
    evictions,
    gather_stretches,
    segment_keys,
    stretch_steps,
    take,
    take_rows,
    within_capacity,
)
from .span_mask import SpanLosses, limit_loss, log_mask, shrink_loss, soft_mask, span_penalty
from .stack import TransformerConfig, TransformerMemory

SLOT_CHUNK = 16
"""Slots are added and removed this many at a time; on CUDA also the steps between two looks."""


class SlotState(NamedTuple):
    """The memories of every environment and layer, in no particular order.

    hidden_BLSD: what each layer was given at the step remembered; anything in an empty slot.
    age_BLS: steps since then, float, 0 for the step just taken; inf marks an empty slot.
    evicted_B: memories dropped alive since the episode began because `max_live` was reached.
    limit_B: steps to which spans are shortened, inf unless `shorten` has drawn a limit.
    """

    hidden_BLSD: Tensor
    age_BLS: Tensor
    evicted_B: Tensor
    limit_B: Tensor


class LayerRead(NamedTuple):
    """What one layer read: the span of every key, and the stretches' keys that could be read."""

    span_BK: Tensor
    stretches: Stretches
    readable_BNCW: Tensor
    evicted_BT: Tensor
    losses: SpanLosses
    read: Read


class SlotTransformer(TransformerMemory):
    """Transformer layers over expiring memories; each environment expires its own.

    A memory is read while its soft mask is above 0 and deleted for good when it no longer is.
    `max_live` bounds the memories of one environment and layer, the step itself included: past it
    the memory with the least remaining span goes, and is counted in the state.

    Gradients stop at the state: memories from before the segment are constants, but the spans and
    the keys and values made from them are not.
    """

    max_span: float = math.inf
    """The longest span there can be, in steps."""
    has_own_spans = False
    """Whether each memory's span is its own, to be learned from its use."""

    def __init__(
        self, dim_in: int, config: TransformerConfig, *, ramp: float, max_live: int | None
    ) -> None:
        super().__init__(dim_in, config)
        self.ramp, self.max_live = ramp, max_live

    @abstractmethod
    def spans(self, hidden_BLYD: Tensor, layers: slice) -> Tensor:
        """Spans in steps, (B, L', Y), of Y memories (B, L', Y, D) of each of the L' `layers`."""

    def head_spans(self, layers: slice) -> Tensor | None:
        """Spans (L', H), none above `spans`, of heads that have their own; otherwise None."""
        return None

    def initial_state(self, batch_size: int) -> SlotState:
        """No memories. See `Memory.initial_state`."""
        shape = (batch_size, self.n_layers, SLOT_CHUNK)
        like = self.state_like()
        return SlotState(
            hidden_BLSD=like.new_zeros(*shape, self.width),
            age_BLS=like.new_full(shape, torch.inf),
            evicted_B=like.new_zeros(batch_size, dtype=torch.int64),
            limit_B=like.new_full((batch_size,), torch.inf),
        )

    @torch.no_grad()
    def spans_at_birth(self, state: SlotState) -> Tensor:
        """See `Memory.spans_at_birth`."""
        newest_BL11 = state.age_BLS.argmin(-1)[..., None, None]
        hidden_BL1D = state.hidden_BLSD.gather(2, newest_BL11.expand(-1, -1, -1, self.width))
        return self.spans(hidden_BL1D, slice(None))[..., 0]

    def live(self, state: SlotState) -> LiveMemories:
        """The memories the step just taken could read. See `Memory.live`."""
        return LiveMemories(state.age_BLS)

    def evicted(self, state: SlotState) -> Tensor:
        """See `Memory.evicted`."""
        return state.evicted_B

    # ---------------------------------------------------------------------------------- acting

    @torch.no_grad()
    def step(self, x_BE: Tensor, state: SlotState, starts_B: Tensor) -> tuple[Tensor, SlotState]:
        """See `Memory.step`. What can be read does not depend on x, so it is settled first."""
        starts_B = starts_B.bool()
        age_BLS = torch.where(starts_B[:, None, None], torch.inf, state.age_BLS + 1)
        spans_BLS = self.spans(state.hidden_BLSD, slice(None))
        spans_BLS = spans_BLS.minimum(state.limit_B[:, None, None])
        held_BLS = torch.where(age_BLS < torch.inf, spans_BLS - age_BLS, -torch.inf)
        slots = self._fit_slots(state.hidden_BLSD, age_BLS, held_BLS)
        hidden_BLSD, age_BLS, remaining_BLS = slots

        mask_BLS = (1 + remaining_BLS / self.ramp).clamp(0, 1)
        dead_BLS = mask_BLS <= 0
        # The deadest slot takes the new memory; when all are alive that is the eviction rule.
        slot_BL1 = remaining_BLS.argmin(-1, keepdim=True)
        evicted_B = (~dead_BLS.gather(-1, slot_BL1)).sum((1, 2))
        if held_BLS.shape[-1] > remaining_BLS.shape[-1]:  # more are dropped as `max_live` sets in
            dropped_BL = self._alive(held_BLS) - self._alive(remaining_BLS)
            evicted_B = evicted_B + dropped_BL.sum(1)
        age_BLS = age_BLS.masked_fill(dead_BLS, torch.inf).scatter(-1, slot_BL1, 0.0)
        # Dead slots are emptied: whatever they held, NaN included, is gone.
        new_BLSD = zero_where(dead_BLS, hidden_BLSD)
        mask_BLHS = mask_BLS.scatter(-1, slot_BL1, 1.0)[:, :, None]
        if (head_span_LH := self.head_spans(slice(None))) is not None:
            mask_BLHS = soft_mask(head_span_LH[..., None], age_BLS[:, :, None], self.ramp)
        log_mask_BLHS = log_mask(mask_BLHS, (age_BLS > 0)[:, :, None])
        decay_BLSJ = age_decay(age_BLS)

        x_BD = self.embed(x_BE)
        slot_BL1D = slot_BL1[..., None].expand(-1, -1, -1, self.width)
        for i in range(self.n_layers):
            layer = self.layer(i)
            z_BD = layer.norm(x_BD)
            new_BLSD[:, i].scatter_(1, slot_BL1D[:, i], z_BD[:, None])
            read_BD = layer.attention.read_slots(
                z_BD, new_BLSD[:, i], decay_BLSJ[:, i], log_mask_BLHS[:, i]
            )
            x_BD = layer.finish(x_BD, read_BD)
        evicted_B = state.evicted_B.masked_fill(starts_B, 0) + evicted_B
        return self.final_norm(x_BD), SlotState(new_BLSD, age_BLS, evicted_B, state.limit_B)

    def _alive(self, remaining_BLS: Tensor) -> Tensor:
        """Number of memories that have not expired, (B, L)."""
        return (remaining_BLS > -self.ramp).sum(-1)

    def _fit_slots(
        self, hidden_BLSD: Tensor, age_BLS: Tensor, remaining_BLS: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give every layer a free slot while `max_live` allows, and drop slots nobody uses."""
        n_slots = age_BLS.shape[-1]
        wanted = self._slots_wanted(n_slots, remaining_BLS)
        if wanted < n_slots:
            kept_BLS = remaining_BLS.topk(wanted, dim=-1, sorted=False).indices
            return (
                hidden_BLSD.gather(2, kept_BLS[..., None].expand(-1, -1, -1, self.width)),
                age_BLS.gather(2, kept_BLS),
                remaining_BLS.gather(2, kept_BLS),
            )
        if wanted > n_slots:
            grow = wanted - n_slots
            return (
                F.pad(hidden_BLSD, (0, 0, 0, grow)),
                F.pad(age_BLS, (0, grow), value=torch.inf),
                F.pad(remaining_BLS, (0, grow), value=-torch.inf),
            )
        return hidden_BLSD, age_BLS, remaining_BLS

    def _slots_wanted(self, n_slots: int, remaining_BLS: Tensor) -> int:
        """How many slots the next memory needs.

        Counting the live makes the host wait for the device. A CPU is asked at every step; on CUDA
        a slot is added blindly at each step, and the count taken when a chunk of them is full.
        """
        limit = self.max_live or n_slots + SLOT_CHUNK
        on_cpu = not remaining_BLS.is_cuda
        if n_slots < limit and not on_cpu and n_slots % SLOT_CHUNK:
            return n_slots + 1
        if n_slots == limit and not on_cpu:
            return n_slots
        live = int(self._alive(remaining_BLS).max())
        if on_cpu:
            wanted = -(-(live + 1) // SLOT_CHUNK) * SLOT_CHUNK
            if wanted <= n_slots <= wanted + 2 * SLOT_CHUNK and n_slots <= limit:
                return n_slots  # a few slots too many cost less than a copy
        else:
            wanted = -(-live // SLOT_CHUNK) * SLOT_CHUNK + 1  # off the chunk until it is full
        return min(wanted, limit)

    # -------------------------------------------------------------------------------- learning

    def unroll(
        self, x_BTE: Tensor, state: SlotState, starts_BT: Tensor
    ) -> tuple[Tensor, SlotState, Aux]:
        """See `Memory.unroll`."""
        T = x_BTE.shape[1]
        empty_BLS1 = state.age_BLS.isinf()[..., None]
        carried_BLSD = state.hidden_BLSD.detach().masked_fill(empty_BLS1, 0.0)
        episode_BT = starts_BT.bool().cumsum(1)
        x_BTD = self.embed(x_BTE)
        memories, reads, spans = [], [], []
        for i in range(self.n_layers):
            layer = self.layer(i)
            z_BTD = layer.norm(x_BTD)
            memories_BKD = torch.cat([carried_BLSD[:, i], z_BTD], dim=1)
            keys = segment_keys(state.age_BLS[:, i], episode_BT)
            predicted_BK = self.spans(memories_BKD[:, None], slice(i, i + 1))[:, 0]
            span_BK = predicted_BK.minimum(state.limit_B[:, None])
            y_BTD, read = self._read_segment(i, z_BTD, memories_BKD, span_BK, keys, episode_BT)
            x_BTD = layer.finish(x_BTD, y_BTD)
            memories.append(memories_BKD.detach())
            reads.append(read)
            spans.append(predicted_BK[:, -T:].detach())
        live_BTL = torch.stack([r.readable_BNCW.sum(-1).flatten(1)[:, :T] for r in reads], -1) - 1
        evicted_BT = torch.stack([read.evicted_BT for read in reads]).sum(0)
        state = self._pack(memories, reads, state, evicted_BT, episode_BT)
        losses = torch.stack([torch.stack(read.losses) for read in reads]).sum(0)
        used = tuple(read.read for read in reads) if self.has_own_spans else ()
        span_BTL = torch.stack(spans, -1)
        aux = Aux(losses[0], losses[1], losses[2], used, span_BTL, live_BTL, evicted_BT.sum(1))
        return self.final_norm(x_BTD), state, aux

    def _read_segment(
        self,
        layer: int,
        z_BTD: Tensor,
        memories_BKD: Tensor,
        span_BK: Tensor,
        keys: Keys,
        episode_BT: Tensor,
    ) -> tuple[Tensor, LayerRead]:
        """One layer's attention over a segment, and what it read."""
        B, T, D = z_BTD.shape
        attention = self.layer(layer).attention
        steps_NC = stretch_steps(T, z_BTD.device)
        N, C = steps_NC.shape
        end_BK = keys.birth_BK + span_BK.detach() + self.ramp
        stretches = gather_stretches(keys, end_BK, episode_BT, steps_NC)
        span_BNW = take(span_BK, stretches.index_BNW)
        mask_BNCW = soft_mask(span_BNW[:, :, None], stretches.age_BNCW, self.ramp)
        readable_BNCW = stretches.visible_BNCW & (mask_BNCW > 0)
        evicted_BT = episode_BT.new_zeros(B, T)
        if self.max_live is not None and (readable_BNCW.sum(-1) > self.max_live).any():
            fits_BTK = within_capacity(end_BK, keys, episode_BT, self.max_live)
            evicted_BT = evictions(fits_BTK, keys, end_BK, episode_BT)
            index_BNCW = stretches.index_BNW[:, :, None].expand_as(readable_BNCW)
            readable_BNCW = readable_BNCW & fits_BTK[:, steps_NC].gather(-1, index_BNCW)

        log_mask_BNHCW = self._log_mask(layer, mask_BNCW, stretches.age_BNCW, readable_BNCW)
        origin_N = steps_NC[:, 0] + C // 2  # positions count from the middle of each stretch
        q_MHCx = attention.queries(
            z_BTD[:, steps_NC].view(B * N, C, D), (steps_NC - origin_N[:, None]).to(z_BTD)
        )
        kv_MWY = take_rows(attention.keys_values(memories_BKD), stretches.index_BNW)
        # Keys gathered but not readable may lie far ahead, where exp would overflow.
        birth_BNW = (take(keys.birth_BK, stretches.index_BNW) - origin_N[:, None]).clamp(max=C // 2)
        y_MCD, attention_MHCW = attention.read(
            q_MHCx, kv_MWY, birth_BNW.flatten(0, 1), log_mask_BNHCW.flatten(0, 1)
        )
        # Queries that fill up the last stretch repeat its last step: they do not pay again.
        paying_BNCW = readable_BNCW.flatten(1, 2)[:, :T]
        paying_BNCW = F.pad(paying_BNCW, (0, 0, 0, N * C - T)).view_as(readable_BNCW)
        losses = self._losses(layer, span_BK[:, -T:], span_BNW, stretches, paying_BNCW)
        read = Read(span_BNW, attention_MHCW, stretches.age_BNCW, self.max_span, B * T)
        return y_MCD.view(B, N * C, D)[:, :T], LayerRead(
            span_BK.detach(), stretches, readable_BNCW, evicted_BT, losses, read
        )

    def _log_mask(
        self, layer: int, mask_BNCW: Tensor, age_BNCW: Tensor, readable_BNCW: Tensor
    ) -> Tensor:
        """Added to the logits, (B, N, 1 or H, C, W); -inf hides a key, and a step from itself."""
        readable_BNHCW = (readable_BNCW & (age_BNCW > 0))[:, :, None]
        mask_BNHCW = mask_BNCW[:, :, None]
        if (span_LH := self.head_spans(slice(layer, layer + 1))) is not None:
            mask_BNHCW = soft_mask(span_LH[0, :, None, None], age_BNCW[:, :, None], self.ramp)
        return log_mask(mask_BNHCW, readable_BNHCW)

    def _losses(
        self,
        layer: int,
        born_BT: Tensor,
        span_BNW: Tensor,
        stretches: Stretches,
        paying_BNCW: Tensor,
    ) -> SpanLosses:
        """A layer's losses from the spans of the segment's own memories and of the stretches' keys,
        and the keys that each query pays for."""
        return SpanLosses(
            span_penalty(span_BNW, stretches.age_BNCW, self.ramp, paying_BNCW) / born_BT.numel(),
            shrink_loss(born_BT).mean(),
            limit_loss(born_BT, self.max_span).mean(),
        )

    @torch.no_grad()
    def _pack(
        self,
        memories: list[Tensor],
        reads: list[LayerRead],
        before: SlotState,
        evicted_BT: Tensor,
        episode_BT: Tensor,
    ) -> SlotState:
        """The state after the last step: what that step could read, in as few slots as hold it."""
        live = max(int(read.readable_BNCW[:, -1, -1].sum(-1).max()) for read in reads)
        n_slots = -(-live // SLOT_CHUNK) * SLOT_CHUNK
        hidden, ages = [], []
        for memories_BKD, read in zip(memories, reads, strict=True):
            age_BW = read.stretches.age_BNCW[:, -1, -1]
            age_BW = age_BW.masked_fill(~read.readable_BNCW[:, -1, -1], torch.inf)
            age_BW = F.pad(age_BW, (0, n_slots), value=torch.inf)
            index_BW = F.pad(read.stretches.index_BNW[:, -1], (0, n_slots))
            age_BS, chosen_BS = age_BW.topk(n_slots, dim=-1, largest=False)
            ages.append(age_BS)
            hidden.append(take_rows(memories_BKD, index_BW.gather(1, chosen_BS)[:, None]))
        this_episode_BT = episode_BT == episode_BT[:, -1:]
        before_B = torch.where(episode_BT[:, -1] == 0, before.evicted_B, 0)
        return SlotState(
            torch.stack(hidden, 1),
            torch.stack(ages, 1),
            before_B + (evicted_BT * this_episode_BT).sum(-1),
            before.limit_B,
        )


def zero_where(dead_BLS: Tensor, hidden_BLSD: Tensor) -> Tensor:
    """A copy of the vectors with 0 where they are dead, by a mask of their bits: NaN becomes 0 too,
    in a third of the time that `torch.where` takes on a CPU."""
    bits = {4: torch.int32, 8: torch.int64}[hidden_BLSD.element_size()]
    kept_BLS1 = dead_BLS.to(bits)[..., None] - 1  # all bits, or none
    return (hidden_BLSD.view(bits) & kept_BLS1).view(hidden_BLSD.dtype)

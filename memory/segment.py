"""Which memories each step of a segment may read, and the few keys each stretch of it needs.

A segment's keys are the S carried slots, then its own T steps (K = S + T). Learning cuts the steps
into N stretches of C queries and gathers, for each, the W keys any of them can read: cost follows
the live memories, not the length of the segment.

    visible, no start     slots  own         start at step 2     slots  own
                     t=0  1 1 1  1 . .                      t=0  1 1 1  1 . .
                     t=1  1 1 1  1 1 .                      t=1  1 1 1  1 1 .
                     t=2  1 1 1  1 1 1                      t=2  . . .  . . 1
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STRETCH = 32
"""Queries that share a set of keys. Bounded by the range of exp in `MemoryAttention`, too."""

NEVER = -1


class Keys(NamedTuple):
    """When and in which episode the keys of one layer were born.

    Steps count from the segment's first; carried slots were born before it and belong to episode 0,
    the one a segment begins in; empty slots belong to episode NEVER.
    """

    birth_BK: Tensor
    episode_BK: Tensor


class Stretches(NamedTuple):
    """The keys of every stretch: index into K, age at each query, and whether it may be read."""

    index_BNW: Tensor
    age_BNCW: Tensor
    visible_BNCW: Tensor


def segment_keys(age_BS: Tensor, episode_BT: Tensor) -> Keys:
    """Keys of one layer from the ages of its slots (inf where empty) and the steps' episodes."""
    filled_BS = age_BS.isfinite()
    steps_BT = torch.arange(episode_BT.shape[1], device=age_BS.device).expand_as(episode_BT)
    slot_birth_BS = torch.where(filled_BS, -1 - age_BS, -1.0)
    slot_episode_BS = torch.where(filled_BS, 0, NEVER)
    return Keys(
        torch.cat([slot_birth_BS, steps_BT.to(age_BS)], 1),
        torch.cat([slot_episode_BS, episode_BT], 1),
    )


def stretch_steps(n_steps: int, device: torch.device) -> Tensor:
    """The step of every query, (N, C); the last stretch is filled up by repeating the last step."""
    n_stretches = -(-n_steps // STRETCH)
    length = min(STRETCH, n_steps)
    steps = torch.arange(n_stretches * length, device=device).clamp(max=n_steps - 1)
    return steps.view(n_stretches, length)


def gather_stretches(keys: Keys, end_BK: Tensor, episode_BT: Tensor, steps_NC: Tensor) -> Stretches:
    """Find the keys each stretch can read. `end` is the last step at which a key can be read."""
    episode_BNC = episode_BT[:, steps_NC]
    birth_B1K, episode_B1K = keys.birth_BK[:, None], keys.episode_BK[:, None]
    needed_BNK = (
        (birth_B1K <= steps_NC[:, -1:])
        & (end_BK[:, None] >= steps_NC[:, :1])
        & (episode_B1K >= episode_BNC[..., :1])
        & (episode_B1K <= episode_BNC[..., -1:])
    )
    n_keys = int(needed_BNK.sum(-1).max())
    index_BNW = needed_BNK.to(torch.uint8).topk(n_keys, dim=-1).indices
    age_BNCW = steps_NC[..., None] - take(keys.birth_BK, index_BNW)[:, :, None]
    same_BNCW = take(keys.episode_BK, index_BNW)[:, :, None] == episode_BNC[..., None]
    return Stretches(index_BNW, age_BNCW, same_BNCW & (age_BNCW >= 0))


def take(values_BK: Tensor, index_BNW: Tensor) -> Tensor:
    """Values of the keys of every stretch, (B, N, W)."""
    return values_BK.gather(1, index_BNW.flatten(1)).view(index_BNW.shape)


def take_rows(rows_BKY: Tensor, index_BNW: Tensor) -> Tensor:
    """Vectors of the keys of every stretch, one stretch after the other: (B * N, W, Y)."""
    B, K, Y = rows_BKY.shape
    first_B11 = torch.arange(0, B * K, K, device=rows_BKY.device)[:, None, None]
    flat = (index_BNW + first_B11).flatten()
    return rows_BKY.reshape(B * K, Y).index_select(0, flat).view(-1, index_BNW.shape[-1], Y)


def within_capacity(end_BK: Tensor, keys: Keys, episode_BT: Tensor, max_live: int) -> Tensor:
    """Which keys a capacity leaves at each step, (B, T, K).

    All memories age alike, so dropping the least remaining span step by step leaves, at any step,
    the `max_live - 1` earlier memories that end last, and the step itself.
    """
    longest_first_BK = end_BK.argsort(dim=-1, descending=True)
    birth_B1K, episode_B1K = (part.gather(1, longest_first_BK)[:, None] for part in keys)
    steps_T1 = torch.arange(episode_BT.shape[1], device=end_BK.device)[:, None]
    earlier_BTK = (episode_B1K == episode_BT[..., None]) & (birth_B1K < steps_T1)
    rank_BTK = earlier_BTK.cumsum(-1, dtype=torch.int32)  # from 1
    fits_BTK = (rank_BTK < max_live) | (birth_B1K == steps_T1)
    back_B1K = longest_first_BK.argsort(dim=-1)[:, None]
    return fits_BTK.gather(-1, back_B1K.expand_as(fits_BTK))


def evictions(fits_BTK: Tensor, keys: Keys, end_BK: Tensor, episode_BT: Tensor) -> Tensor:
    """Memories dropped alive at each step, (B, T): in at the step before, over the bound now."""
    steps_T1 = torch.arange(fits_BTK.shape[1], device=fits_BTK.device)[:, None]
    same_BTK = keys.episode_BK[:, None] == episode_BT[..., None]
    alive_BTK = same_BTK & (keys.birth_BK[:, None] < steps_T1) & (end_BK[:, None] > steps_T1)
    fitted_BTK = torch.cat([torch.ones_like(fits_BTK[:, :1]), fits_BTK[:, :-1]], 1)
    return (alive_BTK & ~fits_BTK & fitted_BTK).sum(-1)

"""Compressive Transformer: a window of past steps, and behind it groups of steps as one vector.

The steps of an episode form groups of c. A group stays in the window, step by step, until all of
its steps are W steps old; then one compressed vector takes its place, for c * N steps more. Which
step and which group can be read follows from the number of steps taken alone, so the state needs
no ages.

    steps of the episode   0 1 2 | 3 4 5 | 6 7 8 | 9 10      c = 3, W = 4, at step 10
                           [ g0 ]  3 4 5   6 7 8   9 (10)    the first group is compressed

B environments, T steps, L layers, D width; W window, c steps of a group, N compressed memories and
R recent steps that a state holds, G groups compressed in a segment, K keys (N + G groups, then
R + T steps). N and R follow the longest episode under way, up to `n_compressed` and `max_recent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import MemoryAttention
from .contract import Aux, LiveMemories, check_counts, check_positive, no_spans
from .segment import take_rows
from .span_mask import log_mask
from .stack import TransformerConfig, TransformerMemory


@dataclass(frozen=True)
class CompressiveConfig(TransformerConfig):
    """Options of the `compressive` memory."""

    memory = "compressive"

    window: int = 64
    """W, steps that are remembered each for itself, at least."""
    compression: int = 4
    """c, steps that are compressed to one vector."""
    n_compressed: int = 32
    """N, compressed vectors remembered behind the window: c * N steps."""
    reconstruction_coef: float = 1.0
    """Weight of the loss that trains the compression."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(
            self.memory,
            window=self.window,
            compression=self.compression,
            n_compressed=self.n_compressed,
        )
        check_positive(self.memory, reconstruction_coef=self.reconstruction_coef)


NEVER = -(2**31)
"""Birth of a group that is not there, before any other."""


class CompressiveState(NamedTuple):
    """What is remembered.

    hidden_BLSD: the last N groups, then the last R steps, that just taken included, both in order
    of time; anything where an environment has none. There are groups only behind `max_recent`
    steps. step_B: steps of the episode before the one just taken, -1 before the first.
    """

    hidden_BLSD: Tensor
    step_B: Tensor


class Groups(NamedTuple):
    """Groups that are compressed during a segment, in order of time.

    Places count along the carried recent steps and then the segment's own. member_BGc and last_BG:
    places of a group's steps and of its last; is_group_BG: False for padding.
    """

    member_BGc: Tensor
    last_BG: Tensor
    is_group_BG: Tensor


class SegmentKeys(NamedTuple):
    """The keys of a segment, and its steps: N carried groups, G new ones, R carried steps, T own.

    step_BK: step of its episode (the last, of a group), and own_BT; episode_BK and episode_BT: 0
    for the episode carried on, -1 for no key; birth_BK: in steps from the segment's first.
    """

    groups: Groups
    step_BK: Tensor
    episode_BK: Tensor
    birth_BK: Tensor
    own_BT: Tensor
    episode_BT: Tensor


class Compressive(TransformerMemory):
    """Keeps W to W + c - 1 past steps, and N vectors that each stand for c steps before those.

    A group is compressed by a linear map of its steps (a convolution of width and stride c). The
    map learns to leave what attention reads as it was: the squared difference between reading a
    group's steps and reading the compressed vectors, by content alone, at the steps that read them;
    so nothing of another episode or environment enters. Neither does that loss reach
    the rest of the network, nor the loss of the task the map.

    Source: Rae et al. 2020, "Compressive Transformers for Long-Range Sequence Modelling",
    arXiv:1911.05507, sec. 3 and algorithm 2. Differs from it in the attention, which is that of all
    memories here (`attention.MemoryAttention`: positions by age, that of a compressed vector being
    its last step's; a step does not read itself, and may read nothing), and in that groups are
    counted from the episode's first step, whatever the segments.
    """

    def __init__(self, dim_in: int, config: CompressiveConfig) -> None:
        super().__init__(dim_in, config)
        self.window, self.group = config.window, config.compression
        self.n_compressed = config.n_compressed
        self.reconstruction_coef = config.reconstruction_coef
        self.max_recent = self.window + self.group - 1
        self.compressors = nn.ModuleList(
            nn.Linear(self.group * self.width, self.width) for _ in range(self.n_layers)
        )

    def initial_state(self, batch_size: int) -> CompressiveState:
        """No memories. See `Memory.initial_state`."""
        hidden_BLSD = self.state_like().new_zeros(batch_size, self.n_layers, 0, self.width)
        step_B = torch.full((batch_size,), -1, device=hidden_BLSD.device)
        return CompressiveState(hidden_BLSD, step_B)

    def live(self, state: CompressiveState) -> LiveMemories:
        """The memories the step just taken could read; a group stands for all of its steps."""
        own_B1, N = state.step_B[:, None], self._sizes(state)[0]
        step_BS = torch.cat(self._carried_steps(state, state.step_B), 1)
        age_BS = torch.where(self._is_held(step_BS, own_B1, N), own_B1 - step_BS, torch.inf)
        steps_S = torch.ones_like(age_BS[0])
        steps_S[:N] = self.group
        return LiveMemories(age_BS[:, None].expand(-1, self.n_layers, -1), steps_S)

    # ------------------------------------------------------------------- which steps are where

    def _sizes(self, state: CompressiveState) -> tuple[int, int]:
        """N and R of a state."""
        n_slots = state.hidden_BLSD.shape[2]
        return max(0, n_slots - self.max_recent), min(n_slots, self.max_recent)

    def _next_sizes(self, state: CompressiveState, own_B1: Tensor) -> tuple[int, int]:
        """N and R after one step more. On CUDA, where looking means to wait for the device, slots
        are added blindly, and those too many are taken away after a segment."""
        if not own_B1.is_cuda:
            return self._sizes_at(own_B1)
        N, R = self._sizes(state)
        return min(self.n_compressed, N + (R == self.max_recent)), min(self.max_recent, R + 1)

    def _sizes_at(self, step_B: Tensor) -> tuple[int, int]:
        """N and R that hold all there is to remember of the longest episode, up to `step`."""
        longest = int(step_B.max())
        n_groups = max(0, (longest - self.window + 1) // self.group)
        return min(self.n_compressed, n_groups), min(self.max_recent, longest + 1)

    def _carried_steps(self, state: CompressiveState, step_B: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of the episode that a state holds, below 0 for none: the last of each group,
        (B, N), and the recent ones, (B, R). `step` is the step just taken."""
        device, step_B1, (N, R) = step_B.device, step_B[:, None], self._sizes(state)
        recent_BR = step_B1 - torch.arange(R - 1, -1, -1, device=device)
        n_groups_B1 = (step_B1 - self.window + 1).div(self.group, rounding_mode="floor")
        number_BN = n_groups_B1 - torch.arange(N, 0, -1, device=device)
        last_BN = torch.where(number_BN >= 0, (number_BN + 1) * self.group - 1, -1)
        return last_BN, recent_BR

    def _is_compressed(self, step: Tensor, at_step: Tensor) -> Tensor:
        """Whether the group of a step has been compressed at another step of the episode."""
        last = step.div(self.group, rounding_mode="floor") * self.group + self.group - 1
        return at_step - last >= self.window

    def _is_held(self, step_BS: Tensor, own_B1: Tensor, n_groups: int) -> Tensor:
        """Which slots, those of groups first, hold what the step `own` can read, (B, S)."""
        is_group_S = torch.arange(step_BS.shape[1], device=step_BS.device) < n_groups
        return (step_BS >= 0) & (is_group_S | ~self._is_compressed(step_BS, own_B1))

    # ---------------------------------------------------------------------------------- acting

    @torch.no_grad()
    def step(
        self, x_BE: Tensor, state: CompressiveState, starts_B: Tensor
    ) -> tuple[Tensor, CompressiveState]:
        """See `Memory.step`."""
        before_B = torch.where(starts_B.bool(), -1, state.step_B)
        own_B1, N = before_B[:, None] + 1, self._sizes(state)[0]
        n_groups, n_recent = self._next_sizes(state, own_B1)
        group_BN, recent_BR = self._carried_steps(state, before_B)
        # the group that becomes old enough now consists of the oldest recent steps
        last_B1 = own_B1 - self.window
        forms_B1 = (last_B1 >= self.group - 1) & ((last_B1 + 1) % self.group == 0)
        group_BN = _append(group_BN, last_B1, forms_B1, n_groups)
        step_BS = torch.cat([group_BN, recent_BR], 1)
        held_BS = self._is_held(step_BS, own_B1, n_groups)
        age_B1S = (own_B1 - step_BS).to(x_BE)[:, None]
        mask_B1S = log_mask(torch.ones_like(age_B1S), held_BS[:, None])

        x_BD, hidden = self.embed(x_BE), []
        for i in range(self.n_layers):
            layer, old_BSD = self.layer(i), state.hidden_BLSD[:, i]
            z_BD = layer.norm(x_BD)
            groups_BND = old_BSD[:, :0]
            if n_groups:  # then there are the recent steps of a group
                new_B1D = self.compressors[i](old_BSD[:, N : N + self.group].flatten(1))[:, None]
                groups_BND = _append(old_BSD[:, :N], new_B1D, forms_B1[..., None], n_groups)
            memories_BSD = torch.cat([groups_BND, old_BSD[:, N:]], 1)
            memories_BSD = memories_BSD.masked_fill(~held_BS[..., None], 0.0)
            read_B1D, _ = layer.attention.read_dense(z_BD[:, None], memories_BSD, age_B1S, mask_B1S)
            x_BD = layer.finish(x_BD, read_B1D[:, 0])
            recent_BRD = torch.cat([old_BSD[:, N:], z_BD[:, None]], 1)[:, -n_recent:]
            hidden.append(torch.cat([groups_BND, recent_BRD], 1))
        return self.final_norm(x_BD), CompressiveState(torch.stack(hidden, 1), own_B1[:, 0])

    # -------------------------------------------------------------------------------- learning

    def unroll(
        self, x_BTE: Tensor, state: CompressiveState, starts_BT: Tensor
    ) -> tuple[Tensor, CompressiveState, Aux]:
        """See `Memory.unroll`."""
        N, T, D = self._sizes(state)[0], starts_BT.shape[1], self.width
        keys, held_BS = self._lay_keys(state, starts_BT.bool())
        readable_BTK, member_BGc = self._readable(keys, N), keys.groups.member_BGc
        reads_BTG = readable_BTK[..., N : N + member_BGc.shape[1]]
        steps_T1 = torch.arange(T, device=x_BTE.device)[:, None]
        age_BTK = (steps_T1 - keys.birth_BK[:, None]).clamp(min=0).to(x_BTE)
        mask_BTK = log_mask(torch.ones_like(age_BTK), readable_BTK)
        carried_BLSD = state.hidden_BLSD.detach().masked_fill(~held_BS[:, None, :, None], 0.0)

        x_BTD = self.embed(x_BTE)
        memories, loss = [], x_BTE.new_zeros(())
        for i in range(self.n_layers):
            layer = self.layer(i)
            z_BTD = layer.norm(x_BTD)
            recent_BPD = torch.cat([carried_BLSD[:, i, N:], z_BTD], 1)
            member_BGcD = take_rows(recent_BPD.detach(), member_BGc).view(*member_BGc.shape, D)
            new_BGD = self.compressors[i](member_BGcD.flatten(2))
            loss += _reconstruction(layer.attention, z_BTD, member_BGcD, new_BGD, reads_BTG)
            memories_BKD = torch.cat([carried_BLSD[:, i, :N], new_BGD.detach(), recent_BPD], 1)
            read_BTD, _ = layer.attention.read_dense(z_BTD, memories_BKD, age_BTK, mask_BTK)
            x_BTD = layer.finish(x_BTD, read_BTD)
            memories.append(memories_BKD.detach())
        state = self._pack(torch.stack(memories, 1), readable_BTK[:, -1], keys, N)
        live_BTL = readable_BTK.sum(-1)[..., None].expand(-1, -1, self.n_layers)
        memory_loss = self.reconstruction_coef * loss
        aux = no_spans(loss)._replace(live_BTL=live_BTL, memory_loss=memory_loss)
        return self.final_norm(x_BTD), state, aux

    def _lay_keys(self, state: CompressiveState, starts_BT: Tensor) -> tuple[SegmentKeys, Tensor]:
        """The keys of a segment, and which of the carried slots hold one, (B, S)."""
        B, T = starts_BT.shape
        carried_step_B1 = state.step_B[:, None]
        group_BN, recent_BR = self._carried_steps(state, state.step_B)
        N, R = group_BN.shape[1], recent_BR.shape[1]
        episode_BT = starts_BT.cumsum(1)
        steps_T = torch.arange(T, device=starts_BT.device)
        began_BT = torch.where(starts_BT, steps_T, -1 - carried_step_B1).cummax(1).values
        own_BT = steps_T - began_BT
        step_BP = torch.cat([recent_BR, own_BT], 1)
        episode_BP = torch.cat([torch.where(recent_BR >= 0, 0, -1), episode_BT], 1)
        groups = self._find_groups(step_BP, episode_BP, carried_step_B1, R)

        carried_episode_BN = torch.where(group_BN >= 0, 0, -1)
        group_episode_BG = episode_BP.gather(1, groups.last_BG)
        group_episode_BG = torch.where(groups.is_group_BG, group_episode_BG, -1)
        places_P = torch.arange(-R, T, device=starts_BT.device)
        keys = SegmentKeys(
            groups=groups,
            step_BK=torch.cat([group_BN, step_BP.gather(1, groups.last_BG), step_BP], 1),
            episode_BK=torch.cat([carried_episode_BN, group_episode_BG, episode_BP], 1),
            birth_BK=torch.cat(
                [group_BN - carried_step_B1 - 1, groups.last_BG - R, places_P.expand(B, -1)], 1
            ),
            own_BT=own_BT,
            episode_BT=episode_BT,
        )
        held_BS = self._is_held(torch.cat([group_BN, recent_BR], 1), carried_step_B1, N)
        return keys, held_BS

    def _find_groups(
        self, step_BP: Tensor, episode_BP: Tensor, carried_step_B1: Tensor, n_recent: int
    ) -> Groups:
        """The groups that become old enough within the segment, or would if the episode lasted."""
        P, c = step_BP.shape[1], self.group
        places_P = torch.arange(P, device=step_BP.device)
        is_last_BP = (step_BP >= 0) & (episode_BP >= 0) & ((step_BP + 1) % c == 0)
        is_last_BP = is_last_BP & (places_P < P - self.window)
        # those that the carried state has compressed already
        carried_BP = places_P < n_recent
        is_last_BP = is_last_BP & ~(carried_BP & (carried_step_B1 - step_BP >= self.window))
        n_groups = int(is_last_BP.sum(1).max())
        order_BG = torch.where(is_last_BP, places_P, P).topk(n_groups, largest=False).values
        last_BG, is_group_BG = order_BG.clamp(min=c - 1, max=P - 1), order_BG < P
        back_c = torch.arange(c - 1, -1, -1, device=step_BP.device)
        return Groups(last_BG[..., None] - back_c, last_BG, is_group_BG)

    def _readable(self, keys: SegmentKeys, n_carried: int) -> Tensor:
        """What each step can read, (B, T, K): earlier steps of its episode not compressed yet, and
        the last `n_compressed` groups that are."""
        K, T = keys.step_BK.shape[1], keys.own_BT.shape[1]
        n_groups = n_carried + keys.groups.last_BG.shape[1]
        is_group_K = torch.arange(K, device=keys.own_BT.device) < n_groups
        steps_T1 = torch.arange(T, device=keys.own_BT.device)[:, None]
        step_B1K, own_BT1 = keys.step_BK[:, None], keys.own_BT[..., None]
        age_BTK = own_BT1 - step_B1K
        reach = self.window + self.group * self.n_compressed
        group_BTK = (age_BTK >= self.window) & (age_BTK < reach)
        earlier_BTK = keys.birth_BK[:, None] < steps_T1
        recent_BTK = earlier_BTK & ~self._is_compressed(step_B1K, own_BT1)
        same_BTK = keys.episode_BK[:, None] == keys.episode_BT[..., None]
        return same_BTK & torch.where(is_group_K, group_BTK, recent_BTK)

    @torch.no_grad()
    def _pack(
        self, memories_BLKD: Tensor, readable_BK: Tensor, keys: SegmentKeys, n_carried: int
    ) -> CompressiveState:
        """The state after the last step: the groups it could read, and the last R steps."""
        n_groups, n_recent = self._sizes_at(keys.own_BT[:, -1])
        n_laid = n_carried + keys.groups.last_BG.shape[1]
        birth_BK = torch.where(readable_BK, keys.birth_BK, NEVER)
        index_BN = birth_BK[:, :n_laid].topk(n_groups).indices.flip(1)
        index_BLND = index_BN[:, None, :, None].expand(-1, self.n_layers, -1, self.width)
        recent_BLRD = memories_BLKD[:, :, -n_recent:]
        hidden_BLSD = torch.cat([memories_BLKD.gather(2, index_BLND), recent_BLRD], 2)
        return CompressiveState(hidden_BLSD, keys.own_BT[:, -1])


def _append(slots_BN: Tensor, new_B1: Tensor, appends_B1: Tensor, size: int) -> Tensor:
    """The last `size` slots, `new` behind where it appends; in front -1, the step of no group."""
    padded = torch.cat([torch.full_like(new_B1, -1), slots_BN], 1)
    appended = torch.cat([slots_BN, new_B1], 1)
    return torch.where(appends_B1, appended, padded)[:, slots_BN.shape[1] + 1 - size :]


def _reconstruction(
    attention: MemoryAttention, z_BTD: Tensor, old_BGcD: Tensor, new_BGD: Tensor, reads_BTG: Tensor
) -> Tensor:
    """Mean squared difference between what the steps z that read groups would read, by content, of
    the groups' own steps and of the compressed vectors."""
    reads_BT = reads_BTG.any(-1)
    if not reads_BT.any():
        return z_BTD.new_zeros(())
    old_BMD, reads_BTM = old_BGcD.flatten(1, 2), reads_BTG.repeat_interleave(old_BGcD.shape[2], -1)
    before_BTD = attention.read_content(z_BTD.detach(), old_BMD, reads_BTM)
    after_BTD = attention.read_content(z_BTD.detach(), new_BGD, reads_BTG)
    return F.mse_loss(after_BTD[reads_BT], before_BTD[reads_BT])

"""GRU and LSTM behind the memory contract: the baselines every memory is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .contract import Aux, Memory, check_counts, no_spans


@dataclass(frozen=True)
class RecurrentConfig:
    """Options of the `gru` and `lstm` memories."""

    width: int = 64
    """Units of each recurrent layer, and size of the output."""
    n_layers: int = 1
    """Recurrent layers."""

    def __post_init__(self) -> None:
        check_counts("recurrent memory", **vars(self))


class GRUConfig(RecurrentConfig):
    """Options of the `gru` memory."""


class LSTMConfig(RecurrentConfig):
    """Options of the `lstm` memory."""


class RecurrentState(NamedTuple):
    """Hidden state of every layer, and the cell state of an LSTM (of width 0 for a GRU)."""

    hidden_BLD: Tensor
    cell_BLD: Tensor


class Recurrent(Memory):
    """A GRU or LSTM. Episodes inside a segment are run side by side, as sequences of their own, so
    learning has no Python loop over time whether an episode starts in the segment or not."""

    def __init__(self, dim_in: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.dim_in, self.dim_out = dim_in, config.width
        self.has_cell = isinstance(config, LSTMConfig)
        rnn: Any = nn.LSTM if self.has_cell else nn.GRU
        self.rnn: Any = rnn(dim_in, config.width, config.n_layers, batch_first=True)

    def initial_state(self, batch_size: int) -> RecurrentState:
        """Zeros. See `Memory.initial_state`."""
        like = self.rnn.weight_ih_l0
        hidden_BLD = like.new_zeros(batch_size, self.rnn.num_layers, self.dim_out)
        return RecurrentState(hidden_BLD, hidden_BLD if self.has_cell else hidden_BLD[..., :0])

    @torch.no_grad()
    def step(
        self, x_BE: Tensor, state: RecurrentState, starts_B: Tensor
    ) -> tuple[Tensor, RecurrentState]:
        """See `Memory.step`."""
        fresh_B11 = starts_B.bool()[:, None, None]
        state = RecurrentState(*(leaf.masked_fill(fresh_B11, 0.0) for leaf in state))
        y_B1D, new_state = self._run(x_BE[:, None], state)
        assert isinstance(y_B1D, Tensor)
        return y_B1D[:, 0], new_state

    def unroll(
        self, x_BTE: Tensor, state: RecurrentState, starts_BT: Tensor
    ) -> tuple[Tensor, RecurrentState, Aux]:
        """See `Memory.unroll`. N counts the pieces of episodes in the segment, B at least."""
        B, T, _ = x_BTE.shape
        begins_BT = starts_BT.bool().clone()
        continued_B = ~begins_BT[:, 0]
        begins_BT[:, 0] = True
        piece_BT = begins_BT.flatten().cumsum(0).view(B, T) - 1
        first_N = begins_BT.flatten().nonzero()[:, 0]
        offset_BT = torch.arange(B * T, device=x_BTE.device).view(B, T) - first_N[piece_BT]
        length_N = torch.bincount(piece_BT.flatten())

        padded_NPE = x_BTE.new_zeros(len(first_N), int(length_N.max()), self.dim_in)
        padded_NPE[piece_BT, offset_BT] = x_BTE
        packed = pack_padded_sequence(
            padded_NPE, length_N.cpu(), batch_first=True, enforce_sorted=False
        )
        y_packed, end = self._run(packed, self._piece_state(state, piece_BT, continued_B))
        assert isinstance(y_packed, PackedSequence)
        y_NPD, _ = pad_packed_sequence(y_packed, batch_first=True)
        last_B = piece_BT[:, -1]
        new_state = RecurrentState(*(leaf[last_B].detach() for leaf in end))
        return y_NPD[piece_BT, offset_BT], new_state, no_spans(x_BTE)

    def _piece_state(
        self, state: RecurrentState, piece_BT: Tensor, continued_B: Tensor
    ) -> RecurrentState:
        """Zeros for every piece of an episode but those that go on from the state given."""
        n_pieces = int(piece_BT[-1, -1]) + 1
        pieces = []
        for leaf in state:
            leaf_NLD = leaf.new_zeros(n_pieces, *leaf.shape[1:])
            leaf_NLD[piece_BT[continued_B, 0]] = leaf[continued_B].detach()
            pieces.append(leaf_NLD)
        return RecurrentState(*pieces)

    def _run(
        self, x: Tensor | PackedSequence, state: RecurrentState
    ) -> tuple[Tensor | PackedSequence, RecurrentState]:
        hidden_LBD, cell_LBD = (leaf.transpose(0, 1).contiguous() for leaf in state)
        if self.has_cell:
            y, (hidden_LBD, cell_LBD) = self.rnn(x, (hidden_LBD, cell_LBD))
        else:
            y, hidden_LBD = self.rnn(x, hidden_LBD)
        return y, RecurrentState(hidden_LBD.transpose(0, 1), cell_LBD.transpose(0, 1))

"""From any observation SB3 accepts to one vector: symbols are embedded, sentences read, pictures
convolved, the rest flattened."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import Tensor, nn

from .spaces import check_space, parts_of

MAX_SYMBOLS = 32
"""A uint8 box whose entries stay below this holds indices (object, colour, ...), not amounts."""
IMAGE_SYMBOLS = 16
"""Symbols per entry of a small picture that declares 0..255; MiniGrid's largest index is 10."""
MIN_CNN_SIZE = 36
"""Smallest picture NatureCNN takes, in pixels."""

MAX_ONE_HOT = 4096
"""Length of a one-hot code up to which it is written out: longer ones take too much memory, and
shorter ones are learned from in a third of the time that rows summed by number take."""

FREQUENCY_HORIZON = 100_000
"""Observations over which the frequency of symbols is averaged, as many as there are at first."""


def follow(frequency: Tensor, newest: Tensor, n_seen: Tensor, n_new: int) -> None:
    """Move a running mean over `n_seen` observations towards that of `n_new` more, in place."""
    frequency.lerp_(newest, n_new / (n_new + n_seen))
    n_seen.add_(n_new).clamp_(max=FREQUENCY_HORIZON)


def is_symbolic(space: spaces.Space[object]) -> bool:
    """Whether an observation holds indices: small uint8 bounds, or a picture too small for a CNN.

    MiniGrid's 7x7x3 view declares 0..255 and looks like a picture; it is told by its size.
    """
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or (space.low != 0).any():
        return False
    return bool(space.high.max() < MAX_SYMBOLS) or (
        is_image_space(space, check_channels=False) and min(sorted(space.shape)[1:]) < MIN_CNN_SIZE
    )


def is_sentence(space: spaces.Space[object]) -> bool:
    """Whether an observation is a sentence of token ids, padded with 0: a uint16 box of one axis.

    No other kind of observation is commonly given as uint16; amounts are best given as float32.
    """
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint16
        and len(space.shape) == 1
        and not space.low.any()
    )


class SentenceEncoder(nn.Module):
    """Reads a sentence of token ids: each word's vector weighted by its place, summed, mixed.

    v = relu(W sum_j l_j * (e(w_j) - m)) with a learned vector l_j for each place: one vector per
    word wherever it stands, and yet who tells whom is not lost. m_j is the mean vector of place j,
    by the words seen there; a sentence is told by what is unusual in it. Padding counts as 0.

    Source: the position encoding of Sukhbaatar et al. 2015, "End-To-End Memory Networks",
    arXiv:1503.08895, sec. 4.1, with places learned; centred as in `SymbolEmbedding`.

    Shapes: (N, L) float or integer -> (N, width). What `check` refuses counts as the word nearest.
    """

    frequency: Tensor
    n_seen: Tensor

    def __init__(self, space: spaces.Box, width: int) -> None:
        super().__init__()
        self.n_words = int(space.high.max()) + 1
        length = space.shape[0]
        self.words = nn.Embedding(self.n_words, width, padding_idx=0)
        nn.init.normal_(self.words.weight[1:], std=0.5)
        self.places = nn.Parameter(1 + 0.5 * torch.randn(length, width))
        self.mix = nn.Linear(width, width)
        nn.init.orthogonal_(self.mix.weight, gain=2**0.5)
        nn.init.zeros_(self.mix.bias)
        self.register_buffer("frequency", torch.zeros(length, self.n_words))
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64))

    def forward(self, sentences: Tensor) -> Tensor:
        words_VD = nn.functional.pad(self.words.weight[1:], (0, 0, 1, 0))  # padding counts as 0
        usual_D = (self.places * (self.frequency @ words_VD)).sum(0)
        summed_ND = self._summed(self._ids(sentences), words_VD)
        return torch.relu(self.mix(summed_ND - usual_D))

    def _summed(self, ids_NL: Tensor, words_VD: Tensor) -> Tensor:
        """sum_j l_j * e(w_j). Many sentences are read from a table of every word at every place,
        which spares the (N, L, width) numbers that would be much of what learning costs."""
        length, n_words = self.frequency.shape
        if ids_NL.numel() <= length * n_words:
            return (self.places * nn.functional.embedding(ids_NL, words_VD)).sum(1)
        table_LVD = self.places[:, None] * words_VD
        rows_NL = ids_NL + torch.arange(length, device=ids_NL.device) * n_words
        return nn.functional.embedding_bag(rows_NL, table_LVD.flatten(0, 1), mode="sum")

    def _ids(self, sentences: Tensor) -> Tensor:
        return sentences.long().clamp(0, self.n_words - 1)

    @torch.no_grad()
    def adapt(self, sentences: Tensor) -> None:
        """Count the words of (N, L) sentences into the frequencies."""
        self.check(sentences)
        ids_NL = self._ids(sentences)
        n_new, length = ids_NL.shape
        places_L = torch.arange(length, device=ids_NL.device) * self.n_words
        counts = torch.bincount((ids_NL + places_L).flatten(), minlength=self.frequency.numel())
        follow(self.frequency, counts.view_as(self.frequency) / n_new, self.n_seen, n_new)

    def check(self, sentences: Tensor) -> None:
        """Raise ValueError for observations that are no ids of words, or not of these."""
        if sentences.is_floating_point():
            raise ValueError(
                f"observations are {sentences.dtype} where their space says ids of words, whole "
                f"numbers below {self.n_words}; leave them as they are "
                "(VecNormalize(norm_obs=False)), or declare a float32 space"
            )
        beyond = (sentences.long() < 0) | (sentences.long() >= self.n_words)
        if beyond.any():
            row, place = beyond.nonzero()[0].tolist()
            raise ValueError(
                f"an observation has {int(sentences[row, place])} at entry {place}, which is read "
                f"as the id of a word, 0 to {self.n_words - 1}; mend the environment, or declare "
                "a space whose high is the largest id"
            )


class SymbolEmbedding(nn.Module):
    """A learned vector for each symbol, and one for each symbol at each place, less their mean,
    summed.

    A linear layer on the one-hot code, with a part that all places share, so that what is seen at
    one place can be like the same seen at another (it begins at 0); and centred: most of what a
    grid world shows is walls and floor, the same at every step, and what matters is a symbol or two
    that differ.
    `frequency` is how often each symbol has been seen; subtracting the mean vector leaves an
    observation's difference from the usual one. `adapt` updates it, between two updates of the
    weights and never within.

    Shapes: (N, *space.shape) float or integer -> (N, width). What `check` refuses counts as
    the last symbol of its place.
    """

    last_symbol: Tensor
    first_row: Tensor
    shared_row: Tensor
    frequency: Tensor
    n_seen: Tensor

    def __init__(self, space: spaces.Box, width: int) -> None:
        super().__init__()
        high = space.high.astype(np.int64).flatten()
        n_symbols = np.where(high < MAX_SYMBOLS, high + 1, IMAGE_SYMBOLS)
        first_row = np.concatenate([[0], n_symbols.cumsum()[:-1]])
        self.register_buffer("last_symbol", torch.as_tensor(n_symbols - 1))
        self.register_buffer("first_row", torch.as_tensor(first_row))
        self.register_buffer("shared_row", torch.as_tensor(_shared_rows(space.shape, n_symbols)))
        self.register_buffer("frequency", torch.zeros(int(n_symbols.sum())))
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64))
        self.at_place = nn.Parameter(0.5 * torch.randn(int(n_symbols.sum()), width))
        self.anywhere = nn.Parameter(torch.zeros(int(self.shared_row.max()) + 1, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, symbols: Tensor) -> Tensor:
        vectors = self.at_place + self.anywhere[self.shared_row]
        rows = self._rows(symbols)
        if len(vectors) <= MAX_ONE_HOT:
            code = vectors.new_zeros(len(rows), len(vectors)).scatter_(1, rows, 1.0)
            centred = (code - self.frequency) @ vectors
        else:
            summed = nn.functional.embedding_bag(rows, vectors, mode="sum")
            centred = summed - self.frequency @ vectors
        return torch.relu(centred + self.bias)

    def _rows(self, symbols: Tensor) -> Tensor:
        return symbols.flatten(1).long().minimum(self.last_symbol) + self.first_row

    @torch.no_grad()
    def adapt(self, symbols: Tensor) -> None:
        """Count the symbols of (N, *space.shape) observations into the frequencies."""
        self.check(symbols)
        n_new = symbols.shape[0]
        counts = torch.bincount(self._rows(symbols).flatten(), minlength=len(self.frequency))
        follow(self.frequency, counts / n_new, self.n_seen, n_new)

    def check(self, symbols: Tensor) -> None:
        """Raise ValueError for observations that are no symbols, or above the last of a place."""
        if symbols.is_floating_point():
            raise ValueError(
                f"observations are {symbols.dtype} where their space says whole numbers below "
                f"{MAX_SYMBOLS}, which are read as symbols; leave them as they are "
                "(VecNormalize(norm_obs=False)), or declare a float32 space"
            )
        beyond = symbols.flatten(1).amax(0) > self.last_symbol
        if beyond.any():
            place = int(beyond.nonzero()[0])
            raise ValueError(
                f"an observation has {int(symbols.flatten(1)[:, place].max())} at entry {place}, "
                f"which is read as a symbol of at most {int(self.last_symbol[place])}; pictures "
                f"are read from {MIN_CNN_SIZE} pixels on (gymnasium.wrappers.ResizeObservation), "
                "smaller ones by a features_extractor_class of your own, amounts as float32"
            )


def _shared_rows(shape: tuple[int, ...], n_symbols: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row that a symbol has in common at all places, for every symbol of every place.

    Places hold the same kind of symbol if there are as many of them and, in a picture, they are of
    the same channel. Channels are the shorter of the first and the last axis: SB3 puts them first.
    """
    channel = np.zeros(n_symbols.size, dtype=np.int64)
    if len(shape) == 3:
        axis = 0 if shape[0] < shape[-1] else 2
        channel = np.indices(shape)[axis].flatten()
    _, kind = np.unique(np.stack([channel, n_symbols]), axis=1, return_inverse=True)
    first_row = np.concatenate([[0], n_symbols[np.unique(kind, return_index=True)[1]].cumsum()])
    symbol = [first_row[k] + np.arange(n) for k, n in zip(kind, n_symbols, strict=True)]
    return np.concatenate(symbol)


class ScaledCNN(nn.Module):
    """SB3's NatureCNN on pixels 0..255, which it divides by 255 itself."""

    def __init__(self, space: spaces.Box, width: int) -> None:
        super().__init__()
        self.cnn = NatureCNN(space, features_dim=width)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.cnn(pixels / 255.0)  # type: ignore[no-any-return]


class ObservationExtractor(BaseFeaturesExtractor):
    """The default features extractor: chooses by the space, key by key for a Dict.

    Symbols -> `SymbolEmbedding`, sentences -> `SentenceEncoder`, pictures -> `ScaledCNN`, the rest
    flattened as SB3 does (Discrete and MultiDiscrete one-hot). Expects observations not scaled: the
    policy turns SB3's division of pictures by 255 off for it. With `normalized_image`, which the
    policy sets for SB3's `normalize_images=False`, float pictures in 0..1, channels first, go to
    SB3's `NatureCNN` as well.

    Raises ValueError for a space SB3's PPO does not take, naming it; TypeError for an option of
    SB3's extractors that there is not.
    """

    def __init__(
        self,
        observation_space: spaces.Space[object],
        symbol_width: int = 64,
        cnn_width: int = 256,
        normalized_image: bool = False,
        **unknown: object,
    ) -> None:
        if unknown:
            raise TypeError(
                f"features_extractor_kwargs has {', '.join(sorted(unknown))}, which there is not; "
                "features of symbols and of sentences are {'symbol_width': 64}, those of a picture "
                "{'cnn_width': 256}, which SB3 calls features_dim, or cnn_output_dim in a Dict"
            )
        check_space(observation_space)
        super().__init__(observation_space, features_dim=1)
        parts = parts_of(observation_space)
        self.names = tuple(parts)
        # a list, because nn.ModuleDict cannot have names of its own methods or with a dot
        self.encoders = nn.ModuleList()
        self._features_dim = 0
        for part in parts.values():
            encoder, size = self._encoder(part, symbol_width, cnn_width, normalized_image)
            self.encoders.append(encoder)
            self._features_dim += size

    @staticmethod
    def _encoder(
        space: spaces.Space[object], symbol_width: int, cnn_width: int, normalized_image: bool
    ) -> tuple[nn.Module, int]:
        if is_symbolic(space):
            assert isinstance(space, spaces.Box)
            return SymbolEmbedding(space, symbol_width), symbol_width
        if is_sentence(space):
            assert isinstance(space, spaces.Box)
            return SentenceEncoder(space, symbol_width), symbol_width
        if is_image_space(space):
            assert isinstance(space, spaces.Box)
            return ScaledCNN(space, cnn_width), cnn_width
        if normalized_image and is_image_space(space, normalized_image=True):
            assert isinstance(space, spaces.Box)
            if min(space.shape[1:]) >= MIN_CNN_SIZE:
                return NatureCNN(space, cnn_width, normalized_image=True), cnn_width
        return nn.Flatten(), get_flattened_obs_dim(space)

    def forward(self, observations: Tensor | dict[str, Tensor]) -> Tensor:
        """(N, *shape), or a dict of them, to (N, features_dim)."""
        features = [encoder(part) for encoder, part in self._read(observations)]
        return features[0] if len(features) == 1 else torch.cat(features, dim=1)

    def check(self, observations: Tensor | dict[str, Tensor]) -> None:
        """Raise ValueError for observations that are not what their space made of them."""
        for encoder, part in self._read(observations):
            if isinstance(encoder, SymbolEmbedding | SentenceEncoder):
                encoder.check(part)

    def adapt(self, observations: Tensor | dict[str, Tensor]) -> None:
        """Take in a rollout's observations, (N, *shape) or a dict of them, after its update."""
        for encoder, part in self._read(observations):
            if isinstance(encoder, SymbolEmbedding | SentenceEncoder):
                encoder.adapt(part)

    def _read(self, observations: Tensor | dict[str, Tensor]) -> Iterator[tuple[nn.Module, Tensor]]:
        """Every encoder, with what it reads."""
        for name, encoder in zip(self.names, self.encoders, strict=True):
            yield encoder, observations[name] if isinstance(observations, dict) else observations

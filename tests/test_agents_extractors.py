"""How the default features extractor reads symbols."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from expire_span.agents import MemoryPPO, extractors, make_vec_env
from expire_span.agents.extractors import ObservationExtractor, SymbolEmbedding


def test_symbols_share_a_vector_over_all_places_of_their_kind() -> None:
    torch.manual_seed(0)
    space = spaces.Box(np.zeros(4, np.uint8), np.array([5, 9, 5, 9], np.uint8), dtype=np.uint8)
    embedding = SymbolEmbedding(space, 256)
    assert embedding.anywhere.shape == (6 + 10, 256)
    with torch.no_grad():
        embedding.at_place.zero_()
        embedding.anywhere.normal_()
    seen = embedding(torch.tensor([[1, 0, 2, 0], [2, 0, 1, 0], [1, 0, 1, 0], [0, 1, 0, 2]]))
    torch.testing.assert_close(seen[0], seen[1])
    assert not seen[0].allclose(seen[2]) and not seen[0].allclose(seen[3])


@pytest.mark.parametrize("size", [3, 7])
def test_a_picture_shares_vectors_by_channel_as_sb3_hands_it_over(size: int) -> None:
    env = make_vec_env("MiniGrid-Empty-5x5-v0", 1, seed=0, env_kwargs={"agent_view_size": size})
    model = MemoryPPO("MlpPolicy", env, memory_kwargs={"width": 16})
    shape = model.policy.observation_space.shape
    assert shape == ((3, 7, 7) if size == 7 else (3, 3, 3))  # SB3 leaves the latter
    channel = 0 if size == 7 else 2
    extractor = model.policy.features_extractor
    assert isinstance(extractor, ObservationExtractor)
    embedding = extractor.encoders["observation"]
    assert isinstance(embedding, SymbolEmbedding)
    assert embedding.anywhere.shape == (3 * extractors.IMAGE_SYMBOLS, 64)
    with torch.no_grad():
        embedding.at_place.zero_()
        embedding.anywhere.normal_()

    def read(value: int, *place: int) -> torch.Tensor:
        seen = torch.zeros(1, *shape)
        where = list(place[:-1])
        where.insert(channel, place[-1])
        seen[(0, *where)] = value
        vector: torch.Tensor = embedding(seen.to(model.device))
        return vector

    ball = read(6, 1, 2, 0)
    torch.testing.assert_close(read(6, 2, 0, 0), ball)
    for kind in (1, 2):
        assert not read(6, 1, 2, kind).allclose(ball)


def test_a_class_made_from_the_default_extractor_sees_symbols_too() -> None:
    class Mine(ObservationExtractor):
        pass

    env = make_vec_env("MiniGrid-Empty-5x5-v0", 1, seed=0)
    model = MemoryPPO("MlpPolicy", env, policy_kwargs={"features_extractor_class": Mine})
    model.learn(model.n_steps)  # counts symbols
    shape = model.observation_space.shape
    assert shape is not None
    views = torch.randint(0, 9, (2, *shape), device=model.device)
    features = model.policy.extract_features(views)
    assert isinstance(features, torch.Tensor) and not features[0].allclose(features[1])


def test_a_one_hot_code_too_long_to_write_out_is_read_as_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    space = spaces.Box(0, 9, (3, 4), np.uint8)
    embedding = SymbolEmbedding(space, 8)
    symbols = torch.randint(0, 12, (64, 3, 4))  # some above the last, which count as that
    embedding.adapt(symbols)
    written_out = embedding(symbols)
    monkeypatch.setattr(extractors, "MAX_ONE_HOT", 0)
    summed = embedding(symbols)
    torch.testing.assert_close(written_out, summed)
    weights = [embedding.at_place, embedding.anywhere, embedding.bias]
    for first, second in zip(
        torch.autograd.grad(written_out.sum(), weights),
        torch.autograd.grad(summed.sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(first, second)

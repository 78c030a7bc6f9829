"""How the default features extractor reads symbols."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

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
    embedding = extractor.encoders[0]
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
    symbols = torch.randint(0, 10, (64, 3, 4))
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


class Shown(gym.Env[np.ndarray, np.int64]):
    """Shows observations of a space."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Box | spaces.Dict) -> None:
        self.observation_space = space  # type: ignore[assignment]

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


def learn(env: VecEnv) -> MemoryPPO:
    sizes = {"width": 8, "n_heads": 2, "ffn_width": 8}
    return MemoryPPO("CnnPolicy", env, n_steps=8, memory_kwargs=sizes, n_epochs=1).learn(16)


def test_a_small_picture_is_not_taken_for_symbols_in_silence() -> None:
    env = DummyVecEnv([lambda: Shown(spaces.Box(0, 255, (16, 16, 3), np.uint8))])
    with pytest.raises(ValueError, match=r"is read as a symbol of at most 15; pictures are read"):
        learn(env)


def test_symbols_that_are_normalised_are_not_cut_to_whole_numbers_in_silence() -> None:
    env = DummyVecEnv([lambda: Shown(spaces.Box(0, 9, (4,), np.uint8))])
    with pytest.raises(ValueError, match=r"float32 where .*VecNormalize\(norm_obs=False\)"):
        learn(VecNormalize(env))
    learn(VecNormalize(env, norm_obs=False))


def test_normalised_pictures_are_convolved_if_the_user_says_so() -> None:
    """SB3 has `normalize_images=False` for pictures in 0..1, channels first."""
    env = DummyVecEnv([lambda: Shown(spaces.Box(0, 1, (3, 36, 36), np.float32))])
    policy_kwargs = {"normalize_images": False}
    model = MemoryPPO("CnnPolicy", env, n_steps=8, policy_kwargs=policy_kwargs).learn(8)
    extractor = model.policy.features_extractor
    assert isinstance(extractor, ObservationExtractor)
    assert isinstance(extractor.encoders[0], NatureCNN)


def test_parts_of_a_dict_may_have_any_name() -> None:
    box = spaces.Box(-1, 1, (2,), np.float32)
    env = DummyVecEnv([lambda: Shown(spaces.Dict({"items": box, "a.b": box, "train": box}))])
    learn(env)


SENTENCE = spaces.Box(0, 9, (4,), np.uint16)


def test_sentences_that_are_normalised_are_not_cut_to_whole_numbers_in_silence() -> None:
    env = DummyVecEnv([lambda: Shown(SENTENCE)])
    with pytest.raises(ValueError, match=r"float32 where .* ids of words.*\(norm_obs=False\)"):
        learn(VecNormalize(env))
    learn(VecNormalize(env, norm_obs=False))


@pytest.mark.parametrize("word", [-1, 10])
def test_words_that_there_are_not_are_named(word: int) -> None:
    extractor = ObservationExtractor(SENTENCE)
    sentences = torch.tensor([[1, 2, 3, 0], [9, 0, word, 0]], dtype=torch.int32)
    extractor.check(sentences.clamp(0, 9))
    assert extractor(sentences).isfinite().all()
    for told in (extractor.check, extractor.adapt):
        with pytest.raises(ValueError, match=f"has {word} at entry 2, .* a word, 0 to 9;"):
            told(sentences)

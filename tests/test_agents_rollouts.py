"""What is learned from is what was acted on; stopping, loading and seeds change nothing.

B environments, T steps of a rollout.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize
from torch import Tensor

from expire_span.agents import MemoryA2C, MemoryPPO
from expire_span.memory import MEMORIES
from expire_span.memory.contract import state_tensors

Algorithm = type[MemoryPPO] | type[MemoryA2C]

SMALL: dict[str, Any] = {"width": 16}
SHORT: dict[str, dict[str, Any]] = {
    "expire-span": {"max_span": 30, "ramp": 6},
    "transformer-xl": {"window": 4},
    "adaptive-span": {"max_span": 8, "ramp": 3},
    "compressive": {"window": 3, "compression": 2, "n_compressed": 2},
}
"""Options of the memories with which some is gone before an episode of 30 steps ends."""
B, T = 4, 24

PIXELS = spaces.Box(0, 255, (40, 40, 1), np.uint8)
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-1, 1, (3,), np.float32),
    "matrix": spaces.Box(-5, 5, (2, 3), np.float64),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([3, 2]),
    "multi-binary": spaces.MultiBinary(4),
    "pixels": PIXELS,
    "symbols": spaces.Box(0, 10, (5, 5, 3), np.uint8),
    "dict": spaces.Dict(
        {
            "place": spaces.Box(-1, 1, (2,), np.float32),
            "pixels": PIXELS,
            "symbols": spaces.Box(0, 9, (4, 2), np.uint8),
            "turn": spaces.Discrete(3),
            "lights": spaces.MultiBinary(2),
        }
    ),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-1, 1, (2,), np.float32),
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([3, 2]),
    "multi-binary": spaces.MultiBinary(3),
}


class RandomEnv(gym.Env[Any, Any]):
    """Random observations and rewards; episodes of 2 to 30 steps that end either way."""

    def __init__(self, observation: str = "box", action: str = "discrete") -> None:
        self.observation_space = OBSERVATIONS[observation]
        self.action_space = ACTIONS[action]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.left = int(self.np_random.integers(2, 31))
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(
            np.asarray(action, self.action_space.dtype)
        ) or isinstance(self.action_space, spaces.Discrete)
        self.left -= 1
        reward, cut = float(self.np_random.normal()), bool(self.np_random.integers(2))
        over = self.left == 0
        return self.observation_space.sample(), reward, over and not cut, over and cut, {}


def random_envs(observation: str = "box", action: str = "discrete", n: int = B) -> VecMonitor:
    return VecMonitor(DummyVecEnv([lambda: RandomEnv(observation, action)] * n))


def parameters(model: MemoryPPO | MemoryA2C) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def differ(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return any(not torch.equal(left[name], right[name]) for name in left)


# the ratio


class CompareWithActing(BaseCallback):
    """At the end of every rollout, before its update: learning's view beside acting's."""

    model: MemoryPPO | MemoryA2C

    def __init__(self) -> None:
        super().__init__()
        self.ratio_errors: list[float] = []
        self.value_errors: list[float] = []
        self.carried: list[bool] = []

    def _on_step(self) -> bool:
        return True

    @torch.no_grad()
    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        for envs in (np.arange(B), np.array([2, 0])):
            segment = buffer.segment(envs)
            said = self.model.policy.evaluate_rollout(
                segment.observations, segment.actions, segment.state, segment.episode_starts
            )
            ratio_BT = (said.log_prob_BT - segment.old_log_prob).exp()
            self.ratio_errors.append(float((ratio_BT - 1).abs().max()))
            self.value_errors.append(float((said.values_BT - segment.old_values).abs().max()))
        self.carried.append(bool((buffer.episode_starts[0] == 0).any()))


CASES = [
    *((name, "box", "discrete") for name in MEMORIES),
    *(("expire-span", observation, "discrete") for observation in OBSERVATIONS),
    *(("expire-span", "box", action) for action in ACTIONS),
    ("lstm", "dict", "box"),
    ("transformer-xl", "symbols", "multi-discrete"),
]


@pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])
@pytest.mark.parametrize(
    ("memory", "observation", "action"),
    [case for case in dict.fromkeys(CASES)],
)
def test_ratio_is_one_before_an_update(
    algorithm: Algorithm, memory: str, observation: str, action: str
) -> None:
    model = algorithm(
        "MultiInputPolicy" if observation == "dict" else "MlpPolicy",
        random_envs(observation, action),
        memory=memory,
        memory_kwargs=SMALL | SHORT.get(memory, {}),
        n_steps=T,
        seed=0,
    )
    before, compare = parameters(model), CompareWithActing()
    model.learn(3 * B * T, callback=compare)
    assert len(compare.carried) == 3 and all(compare.carried[1:])  # memory from before the update
    assert max(compare.ratio_errors) < 1e-5
    assert max(compare.value_errors) < 1e-5
    after = parameters(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    if memory != "none":  # whose attention has nothing to read
        assert changed >= {f"memory.{name}" for name, _ in model.policy.memory.named_parameters()}


@pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])
def test_a_bound_sets_in_when_that_share_of_the_training_is_done(
    algorithm: Algorithm, tmp_path: Path
) -> None:
    options = SMALL | {"max_span": 40, "max_live": 4, "max_live_from": 0.5}
    model = algorithm("MlpPolicy", random_envs(), memory_kwargs=options, n_steps=T, seed=0)
    live: list[int] = []

    class Compare(CompareWithActing):
        def _on_rollout_end(self) -> None:
            super()._on_rollout_end()
            memories = self.model.policy.memory.live(self.model._last_state)
            assert memories is not None
            live.append(int(memories.count_BL().max()))
            if self.num_timesteps == B * T:
                self.model.save(tmp_path / "early")

    compare = Compare()
    model.learn(4 * B * T, callback=compare)
    assert min(live[:2]) > 4 and live[2:] == [4, 4]  # in the middle of episodes
    assert max(compare.ratio_errors) < 1e-5 and max(compare.value_errors) < 1e-5
    model.save(tmp_path / "late")
    for name, bound in (("early", None), ("late", 4)):
        assert algorithm.load(tmp_path / name).policy.memory.max_live == bound
    again = algorithm.load(tmp_path / "late", env=random_envs())
    again.learn(B * T, callback=(once_more := Compare()))
    assert live[4] > 4 and max(once_more.ratio_errors) < 1e-5  # from the first step anew


class Rounding(RandomEnv):
    """Takes actions of any kind of number, and shows amounts as whole ones."""

    observation_space = spaces.Box(0, 255, (8,), np.uint8)

    def __init__(self, dtype: type[Any]) -> None:
        self.action_space = spaces.Box(-4, 4, (2,), dtype)


@pytest.mark.parametrize(
    ("dtype", "squashes"),
    [(np.int32, False), (np.float16, False), (np.float64, False), (np.float64, True)],
)
def test_what_is_stored_is_not_rounded(dtype: type[Any], squashes: bool) -> None:
    env = VecNormalize(VecMonitor(DummyVecEnv([lambda: Rounding(dtype)] * B)))
    model = MemoryPPO(
        "MlpPolicy",
        env,
        memory_kwargs=SMALL,
        n_steps=T,
        seed=0,
        use_sde=squashes,
        policy_kwargs={"squash_output": squashes},
    )
    compare = CompareWithActing()
    model.learn(2 * B * T, callback=compare)
    assert max(compare.ratio_errors) < 1e-5
    assert max(compare.value_errors) < 1e-5


class WholeAtFirst(RandomEnv):
    """Observations of a float space that begin with whole numbers, as `np.zeros(8, int)` does."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        obs, info = super().reset(seed=seed, options=options)
        return np.zeros_like(obs, dtype=np.int64), info


def test_observations_after_whole_numbers_are_not_rounded() -> None:
    """Processes hand observations on as they are, where SB3's `DummyVecEnv` casts them."""
    env = SubprocVecEnv([WholeAtFirst] * B, start_method="fork")
    try:
        model = MemoryPPO("MlpPolicy", env, memory_kwargs=SMALL, n_steps=T, seed=0)
        compare = CompareWithActing()
        model.learn(2 * B * T, callback=compare)
    finally:
        env.close()
    assert model.rollout_buffer.stored[""].dtype == np.float32
    assert max(compare.ratio_errors) < 1e-5
    assert max(compare.value_errors) < 1e-5


@pytest.mark.parametrize("target_kl", [1e-9, None])
def test_evictions_are_counted_in_every_environment_however_early_an_update_stops(
    target_kl: float | None,
) -> None:
    options = SMALL | {"max_span": 40, "max_live": 4}
    model = MemoryPPO(
        "MlpPolicy",
        random_envs(),
        memory_kwargs=options,
        n_steps=T,
        batch_size=T,
        learning_rate=1e-2,
        target_kl=target_kl,
        seed=0,
    )
    model.learn(B * T)
    logged = model.logger.name_to_value
    segment = model.rollout_buffer.segment(np.arange(B))
    held = model._held(segment)
    evicted_B = held.evicted_B
    assert evicted_B is not None and held.span_BTL is not None
    assert not held.span_BTL.requires_grad  # nothing of the graph stays for the metrics
    assert logged["memory/evicted"] == evicted_B.sum() > 0


# timeouts


class Countdown(gym.Env[Any, Any]):
    """Shows how many steps were taken, pays 0.5 for each, and ends after `length` as it is told."""

    observation_space = spaces.Box(0, 100, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length: int, terminates: bool, truncates: bool) -> None:
        self.length, self.ends = length, (terminates, truncates)

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        self.taken = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.taken += 1
        terminated, truncated = (end and self.taken == self.length for end in self.ends)
        return np.full(1, self.taken, np.float32), 0.5, terminated, truncated, {}


COUNTDOWNS = [(7, False, True), (7, True, False), (7, True, True), (5, False, True)]
"""Truncated, terminated, both at once, truncated earlier."""
LENGTHS = [length for length, _, _ in COUNTDOWNS]


def countdown_model(algorithm: Algorithm, memory: str) -> MemoryPPO | MemoryA2C:
    env = DummyVecEnv([partial(Countdown, *countdown) for countdown in COUNTDOWNS])
    model = algorithm(
        "MlpPolicy",
        env,
        memory=memory,
        memory_kwargs=SMALL | SHORT.get(memory, {}),
        n_steps=T,
        gamma=0.9,
        gae_lambda=1.0,
        learning_rate=0.0,
        seed=0,
    )
    with torch.no_grad():
        model.policy.value_net.weight.normal_()
    return model


def value_after(model: MemoryPPO | MemoryA2C, n_steps: int, remembering: bool = True) -> float:
    """Value of observation `n_steps`, after an episode from 0 on, or as if that were the first."""
    policy, state = model.policy, model.policy.initial_state(1)

    def observe(step: int) -> torch.Tensor:
        return torch.full((1, 1), float(step), device=model.device)

    starts_B = torch.ones(1, dtype=torch.bool, device=model.device)
    for taken in range(n_steps if remembering else 0):
        state = policy.act(observe(taken), state, starts_B).state
        starts_B = torch.zeros_like(starts_B)
    return float(policy.values_of(observe(n_steps), state, starts_B))


@pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])
@pytest.mark.parametrize("memory", MEMORIES)
def test_truncation_bootstraps_from_the_memory_of_the_cut_episode_and_termination_does_not(
    algorithm: Algorithm, memory: str
) -> None:
    model = countdown_model(algorithm, memory)
    model.learn(2 * len(LENGTHS) * T)
    rewards_TB, starts_TB = model.rollout_buffer.rewards, model.rollout_buffer.episode_starts
    ends_TB = np.concatenate([starts_TB[1:], [model._last_episode_starts]]).astype(bool)
    assert (ends_TB.sum(0) >= 2).all()
    np.testing.assert_array_equal(rewards_TB[~ends_TB], 0.5)
    for i, (length, bootstraps) in enumerate(zip(LENGTHS, [1, 0, 0, 1], strict=True)):
        expected = 0.5 + 0.9 * bootstraps * value_after(model, length)
        np.testing.assert_allclose(rewards_TB[ends_TB[:, i], i], expected, atol=1e-5)
    if memory != "none":
        assert abs(value_after(model, 7) - value_after(model, 7, remembering=False)) > 1e-3


@pytest.mark.parametrize("memory", MEMORIES)
def test_end_of_a_rollout_bootstraps_from_the_memory_of_the_running_episode(memory: str) -> None:
    model = countdown_model(MemoryPPO, memory)
    model.learn(len(LENGTHS) * T)  # T = 24 steps: 3 into the fourth episode of 7, 4 of 5
    last_B = [0.5 + 0.9 * value_after(model, T % length) for length in LENGTHS]
    np.testing.assert_allclose(model.rollout_buffer.returns[-1], last_B, atol=1e-5)


@pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])
def test_a_known_value_is_added_discounted(algorithm: Algorithm) -> None:
    model = countdown_model(algorithm, "expire-span")
    with torch.no_grad():
        model.policy.value_net.weight.zero_()
        model.policy.value_net.bias.fill_(3.0)
    model.learn(len(LENGTHS) * T)
    for i, last_reward in enumerate([0.5 + 0.9 * 3, 0.5, 0.5, 0.5 + 0.9 * 3]):
        expected_T = np.full(T, 0.5, np.float32)
        expected_T[LENGTHS[i] - 1 :: LENGTHS[i]] = last_reward
        np.testing.assert_allclose(model.rollout_buffer.rewards[:, i], expected_T, atol=1e-6)


# seeds, stopping and going on


def fresh_model(algorithm: Algorithm, memory: str = "expire-span", seed: int = 3) -> Any:
    kwargs: dict[str, Any] = {
        "memory": memory,
        "memory_kwargs": SMALL | SHORT.get(memory, {}),
        "n_steps": T,
        "seed": seed,
    }
    if algorithm is MemoryPPO:
        kwargs["n_epochs"] = 2
    return algorithm("MlpPolicy", random_envs(), **kwargs)


@pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])
@pytest.mark.parametrize("memory", MEMORIES)
def test_same_seed_same_run(algorithm: Algorithm, memory: str) -> None:
    runs = []
    for seed in (3, 3, 4):
        model = fresh_model(algorithm, memory, seed)
        model.learn(3 * B * T)
        runs.append(parameters(model))
    assert_equal(runs[0], runs[1])
    assert differ(runs[0], runs[2])


def test_a_seed_set_later_seeds_everything() -> None:
    runs = []
    for seed in (5, 5, 6):
        env = random_envs()
        env.seed(0)
        model = MemoryPPO("MlpPolicy", env, memory_kwargs=SMALL, n_steps=T)
        with torch.no_grad():
            for weight in model.policy.parameters():
                weight.fill_(0.01)
        model.set_random_seed(seed)
        model.learn(2 * B * T)
        runs.append(parameters(model))
    assert_equal(runs[0], runs[1])
    assert differ(runs[0], runs[2])


def drawn_next(model: Any) -> list[float]:
    """What a loaded agent that goes on draws first."""
    model._setup_learn(1, reset_num_timesteps=False)
    return [*model._rng.permutation(50), *torch.rand(5).tolist()]


def test_a_seed_set_after_loading_is_what_counts(tmp_path: Path) -> None:
    fresh_model(MemoryPPO, "gru").save(tmp_path / "model")
    draws = []
    for seed in (1, 1, 2):
        loaded = MemoryPPO.load(tmp_path / "model", env=random_envs())
        loaded.set_random_seed(seed)
        draws.append(drawn_next(loaded))
    assert draws[0] == draws[1] != draws[2]


def test_saving_what_was_loaded_keeps_its_random_numbers(tmp_path: Path) -> None:
    fresh_model(MemoryPPO, "gru").save(tmp_path / "model")
    loaded = MemoryPPO.load(tmp_path / "model", env=random_envs())
    torch.rand(100)
    loaded.save(tmp_path / "again")
    expected = drawn_next(MemoryPPO.load(tmp_path / "model", env=random_envs()))
    assert drawn_next(MemoryPPO.load(tmp_path / "again", env=random_envs())) == expected
    assert drawn_next(loaded) == expected


def test_loading_with_a_seed_begins_with_it(tmp_path: Path) -> None:
    model = fresh_model(MemoryPPO)
    model.learn(B * T)
    model.save(tmp_path / "model")
    orders = []
    for seed in (5, 5, 6):
        orders.append(drawn_next(MemoryPPO.load(tmp_path / "model", env=random_envs(), seed=seed)))
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])
@pytest.mark.parametrize("memory", MEMORIES)
def test_saving_loading_and_learning_on_equals_never_having_stopped(
    algorithm: Algorithm, memory: str, tmp_path: Path
) -> None:
    never_stopped = fresh_model(algorithm, memory)
    never_stopped.learn(6 * B * T)

    stopped = fresh_model(algorithm, memory)
    stopped.learn(3 * B * T)
    stopped.save(tmp_path / "model")
    torch.manual_seed(12345)
    np.random.seed(12345)
    loaded = algorithm.load(tmp_path / "model", env=stopped.get_env(), force_reset=False)
    assert_equal(parameters(loaded), parameters(stopped))
    assert (loaded._last_episode_starts == 0).any()  # episodes are running
    loaded.learn(3 * B * T, reset_num_timesteps=False)
    assert loaded.num_timesteps == never_stopped.num_timesteps == 6 * B * T
    assert_equal(parameters(loaded), parameters(never_stopped))
    assert loaded.span_control == never_stopped.span_control and loaded.span_control.coef > 0


@pytest.mark.parametrize("disk_is_full", [False, True])
def test_saving_leaves_the_run_as_it_was(tmp_path: Path, disk_is_full: bool) -> None:
    folder = tmp_path / "folder"
    folder.touch() if disk_is_full else folder.mkdir()  # no file can be written in a file
    runs = []
    for save in (False, True):
        model = fresh_model(MemoryPPO)
        model.learn(2 * B * T)
        if save:
            with pytest.raises(OSError) if disk_is_full else nullcontext():
                model.save(folder / "model")
        model.policy.act(  # draws random numbers
            torch.zeros(B, 3), model.policy.initial_state(B), torch.ones(B, dtype=torch.bool)
        )
        model.learn(2 * B * T, reset_num_timesteps=False)
        runs.append(parameters(model))
    assert_equal(*runs)


def test_memories_follow_the_agent_to_another_device() -> None:
    model = fresh_model(MemoryPPO)
    model.learn(B * T)
    model.device = torch.device("meta")
    model._setup_learn(1, reset_num_timesteps=False)
    assert {leaf.device.type for leaf in state_tensors(model._last_state)} == {"meta"}


def test_memories_are_saved_so_that_any_machine_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh_model(MemoryPPO)
    model.learn(B * T)
    moved: list[str] = []
    to_cpu = Tensor.cpu

    def watched(leaf: Tensor) -> Tensor:
        moved.append(leaf.device.type)
        return to_cpu(leaf)

    monkeypatch.setattr(Tensor, "cpu", watched)
    before = model._last_state
    model.save(tmp_path / "model")
    assert len(moved) >= len(list(state_tensors(before))) and model._last_state is before
    loaded = MemoryPPO.load(tmp_path / "model", device="cpu")
    assert {leaf.device.type for leaf in state_tensors(loaded._last_state)} == {"cpu"}


def test_loading_with_another_environment_starts_its_episodes_afresh(tmp_path: Path) -> None:
    model = fresh_model(MemoryPPO)
    model.learn(2 * B * T)
    model.save(tmp_path / "model")
    loaded = MemoryPPO.load(tmp_path / "model", env=random_envs(n=6))
    loaded.learn(6 * T, reset_num_timesteps=False)
    assert loaded.rollout_buffer.episode_starts[0].tolist() == [1] * 6
    live = loaded.policy.memory.live(loaded.rollout_buffer.initial_state)
    assert live.count_BL().tolist() == [[0, 0]] * 6


class FourSteps(gym.Env[Any, Any]):
    """Episodes of four steps: the first observation is a cue, the last but one needs it."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {"memory": {"cue": 0, "decision": -1}}

    def step(self, action: Any) -> Any:
        self.count += 1
        marks = {"cue": -1, "decision": 0 if self.count == 3 else -1}
        return np.zeros(1, np.float32), 1.0, self.count == 4, False, {"memory": marks}


def test_the_rollout_says_which_observations_show_a_cue() -> None:
    model = MemoryPPO("MlpPolicy", DummyVecEnv([FourSteps] * 2), memory="none", n_steps=9)
    model.learn(18)
    shows_cue = [True, False, False, False] * 2 + [True]
    assert model.rollout_buffer.shows_cue[:, 0].tolist() == shows_cue


def test_the_step_itself_is_no_live_memory() -> None:
    options: dict[str, Any] = {
        "memory": "transformer-xl",
        "memory_kwargs": {"window": 2},
        "n_steps": 3,
    }
    model = MemoryPPO("MlpPolicy", DummyVecEnv([FourSteps] * 2), **options)
    model.learn(6)
    assert model._live_mean() == 2


def test_every_rollout_and_environment_draws_a_limit_with_shorten() -> None:
    memory_kwargs = {"shorten": True, "max_span": 8}
    vec_env = DummyVecEnv([FourSteps] * 2)
    model = MemoryPPO("MlpPolicy", vec_env, memory_kwargs=memory_kwargs, n_steps=3)
    limits: list[float] = []
    for _ in range(2):
        model.learn(6, reset_num_timesteps=False)
        state: Any = model.rollout_buffer.initial_state
        limits += state.limit_B.tolist()
    assert len(set(limits)) == 4
    assert 0 <= min(limits) <= max(limits) <= 8


def test_recent_returns_stay_with_other_environments() -> None:
    options: dict[str, Any] = {"memory": "none", "n_steps": 16}
    model = MemoryPPO("MlpPolicy", DummyVecEnv([FourSteps] * 2), **options)
    model.learn(64)
    assert model._returns is not None
    before = list(model._returns.recent)
    assert before
    model.set_env(DummyVecEnv([FourSteps] * 2))
    model._setup_learn(1, reset_num_timesteps=False)
    assert list(model._returns.recent) == before

"""What works with Stable-Baselines3's own algorithms works with those that have a memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    is_vecenv_wrapped,
)
from torch import Tensor, nn

from expire_span.agents import MemoryA2C, MemoryPPO, make_vec_env
from expire_span.agents.environments import CopyableMonitor
from expire_span.memory import MEMORIES, state_bytes

CORRIDOR = "expire_span.envs:ExpireSpan/Corridor-v0"
PENDULUM = "Pendulum-v1"
ALGORITHMS = [MemoryPPO, MemoryA2C]
B, T = 4, 16

for_both_algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS)
for_every_memory = pytest.mark.parametrize("memory", MEMORIES)


def corridors(n: int = B, seed: int | None = 0) -> VecEnv:
    return make_vec_env(CORRIDOR, n, seed=seed, env_kwargs={"min_length": 3, "max_length": 6})


def build(algorithm: Any = MemoryPPO, env: Any = None, **kwargs: Any) -> Any:
    kwargs = {"memory_kwargs": {"width": 16}, "n_steps": T, "seed": 0, **kwargs}
    if algorithm is MemoryPPO:
        kwargs.setdefault("n_epochs", 2)
    return algorithm("MlpPolicy", corridors() if env is None else env, **kwargs)


def parameters(model: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def assert_learns(model: Any, n_rollouts: int = 2, **kwargs: Any) -> None:
    before = parameters(model)
    assert model.learn(n_rollouts * model.n_envs * model.n_steps, **kwargs) is model
    after = parameters(model)
    assert not equal(before, after)
    assert all(value.isfinite().all() for value in after.values())


def assert_same_after_saving(model: Any, path: Path) -> Any:
    model.save(path / "model")
    loaded = type(model).load(path / "model")
    assert equal(parameters(model), parameters(loaded))
    obs = np.stack([model.observation_space.sample() for _ in range(3)])
    left, right = (m.predict(obs, deterministic=True)[0] for m in (model, loaded))
    np.testing.assert_array_equal(left, right)
    return loaded


# predict


def pendulum_model(memory: str = "expire-span") -> Any:
    """Continuous actions, so that a difference in memory is one in actions; no training needed."""
    torch.manual_seed(0)
    model = build(env=make_vec_env(PENDULUM, 3, seed=0), memory=memory)
    with torch.no_grad():
        model.policy.action_net.weight.normal_()
    return model


def pendulum_obs(n_steps: int, n: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-1, 1, (n_steps, n, 3)).astype(np.float32)


def play(model: Any, obs: NDArray[np.float32], state: Any = None) -> tuple[NDArray[Any], Any]:
    actions = []
    for step in obs:
        action, state = model.predict(step, state=state, deterministic=True)
        actions.append(action)
    return np.stack(actions), state


@for_every_memory
def test_predict_keeps_what_it_is_told_to_keep_and_nothing_else(memory: str) -> None:
    model, obs = pendulum_model(memory), pendulum_obs(12)
    kept, _ = play(model, obs)
    forgetful = np.stack([model.predict(step, deterministic=True)[0] for step in obs])
    np.testing.assert_array_equal(kept[0], forgetful[0])
    np.testing.assert_array_equal(play(model, obs)[0], kept)
    assert np.allclose(kept, forgetful) == (memory == "none")

    # going on from a state twice gives the same twice: the state passed in is not used up
    _, state = play(model, obs[:7])
    bytes_held = state_bytes(state)
    for _ in range(2):
        np.testing.assert_array_equal(play(model, obs[7:], state)[0], kept[7:])
    assert state_bytes(state) == bytes_held


@for_every_memory
@pytest.mark.parametrize("as_type", [bool, np.float32])
def test_episode_start_forgets_in_the_environments_it_marks(memory: str, as_type: type) -> None:
    model, obs = pendulum_model(memory), pendulum_obs(8)
    _, state = play(model, obs[:5])
    starts = np.array([False, True, False])
    marked, _ = model.predict(obs[5], state, starts.astype(as_type), deterministic=True)
    went_on, _ = model.predict(obs[5], state, deterministic=True)
    began, _ = model.predict(obs[5], deterministic=True)
    np.testing.assert_allclose(marked[1], began[1], atol=1e-5)
    np.testing.assert_allclose(marked[[0, 2]], went_on[[0, 2]], atol=1e-5)
    assert np.allclose(began, went_on, atol=1e-4) == (memory == "none")


@for_every_memory
def test_predict_takes_a_single_observation(memory: str) -> None:
    model, obs = pendulum_model(memory), pendulum_obs(6)
    together, _ = play(model, obs)
    alone, _ = play(model, obs[:, 0])
    assert alone.shape == (6, 1)
    np.testing.assert_allclose(alone, together[:, 0], atol=1e-5)
    corridor = build(memory=memory)
    action, state = corridor.predict(corridor.observation_space.sample())
    assert action.shape == () and corridor.action_space.contains(int(action))
    assert all(len(leaf) == 1 for leaf in state)


@for_every_memory
def test_a_state_of_other_environments_is_refused(memory: str) -> None:
    model, obs = pendulum_model(memory), pendulum_obs(2)
    _, state = model.predict(obs[0])
    with pytest.raises(ValueError, match=r"2 observations with a state of 3 env.*state=None"):
        model.predict(obs[1, :2], state)


@for_every_memory
def test_a_state_of_another_memory_is_refused(memory: str) -> None:
    model, obs = pendulum_model(memory), pendulum_obs(1)
    other = (np.zeros((1, 3, 8)), np.zeros((1, 3, 8)))  # as RecurrentPPO's
    with pytest.raises(ValueError, match=r"a state that is a tuple, .* or None to start episodes"):
        model.predict(obs[0], other)


def test_actions_lie_in_the_space_and_vary_unless_deterministic() -> None:
    model, obs = pendulum_model(), pendulum_obs(1, n=64)[0]
    with torch.no_grad():
        model.policy.log_std.fill_(2.0)
    first, second = (model.predict(obs)[0] for _ in range(2))
    assert (np.abs(first) <= 2).all() and np.abs(first).max() == 2 and (first != second).any()
    first, second = (model.predict(obs, deterministic=True)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


# options of SB3's algorithms and policies


class TwoLayers(BaseFeaturesExtractor):
    """A features extractor of a user's own."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 10) -> None:
        super().__init__(observation_space, features_dim)
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(20), nn.ReLU(), nn.Linear(20, 10))
        self.layers(torch.zeros(1, *observation_space.shape))

    def forward(self, observations: Tensor) -> Tensor:
        return self.layers(observations)  # type: ignore[no-any-return]


OPTIONS: dict[str, dict[str, Any]] = {
    "net_arch": {"policy_kwargs": {"net_arch": [12]}},
    "net_arch of two": {"policy_kwargs": {"net_arch": {"pi": [12, 8], "vf": [10]}}},
    "net_arch as of old": {"policy_kwargs": {"net_arch": [{"pi": [12], "vf": [10]}]}},
    "activation_fn": {"policy_kwargs": {"net_arch": [12], "activation_fn": nn.ReLU}},
    "features extractor": {
        "policy_kwargs": {
            "features_extractor_class": TwoLayers,
            "features_extractor_kwargs": {"features_dim": 10},
        }
    },
    "optimizer": {"policy_kwargs": {"optimizer_class": torch.optim.AdamW, "ortho_init": False}},
    "optimizer that loops": {"policy_kwargs": {"optimizer_kwargs": {"foreach": True}}},
    "seed of numpy": {"seed": np.int64(3)},
    "schedule": {"learning_rate": lambda remaining: 1e-3 * remaining},
    "one step": {"n_steps": 1},
    "no bootstrapping of advantages": {"gae_lambda": 0.0},
    "span_coef": {"span_coef": 1e-3},
    "target_live": {"target_live": 8},
    "falling target_live": {"target_live": lambda remaining: 4 + 4 * remaining},
    "use_by": {"use_by": "influence"},
}
OPTIONS_OF: list[tuple[Any, str, dict[str, Any]]] = [
    *((algorithm, name, kwargs) for algorithm in ALGORITHMS for name, kwargs in OPTIONS.items()),
    (MemoryPPO, "clip_range_vf", {"clip_range_vf": 0.1}),
    (
        MemoryPPO,
        "schedules",
        {"clip_range": lambda left: 0.2 * left, "clip_range_vf": lambda _: 0.1},
    ),
    (MemoryPPO, "batch_size", {"batch_size": 2 * T}),
    (MemoryPPO, "no normalisation", {"normalize_advantage": False}),
    (MemoryA2C, "normalize_advantage", {"normalize_advantage": True}),
    (MemoryA2C, "use_rms_prop", {"use_rms_prop": True}),
]


@pytest.mark.filterwarnings("ignore:As shared layers")  # SB3's, of net_arch as of old
@pytest.mark.parametrize(
    ("algorithm", "kwargs"),
    [pytest.param(a, kwargs, id=f"{a.__name__}-{name}") for a, name, kwargs in OPTIONS_OF],
)
def test_options_learn_save_and_load(
    algorithm: Any, kwargs: dict[str, Any], tmp_path: Path
) -> None:
    model = build(algorithm, **kwargs)
    assert_learns(model)
    assert_same_after_saving(model, tmp_path)


def test_rms_prop_is_used_when_asked_for() -> None:
    assert isinstance(build(MemoryA2C, use_rms_prop=True).policy.optimizer, torch.optim.RMSprop)
    assert isinstance(build(MemoryA2C).policy.optimizer, torch.optim.Adam)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rms_prop_eps": 1e-3}, r"rms_prop_eps = 0\.001 .* set use_rms_prop = True"),
        (
            {"use_rms_prop": True, "policy_kwargs": {"optimizer_class": torch.optim.SGD}},
            "use_rms_prop = True and policy_kwargs' optimizer_class = .*SGD.* two optimizers",
        ),
    ],
)
def test_options_of_another_optimizer_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(MemoryA2C, **options)


def test_an_activation_without_a_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"activation_fn = .*ReLU.* give net_arch, as \[64\]"):
        build(policy_kwargs={"activation_fn": nn.ReLU})


@for_both_algorithms
def test_schedules_stay_above_0_in_a_rollout_beyond_the_training(algorithm: Any) -> None:
    asked: list[float] = []

    def linear(left: float) -> float:
        asked.append(left)
        return 1e-3 * left

    build(algorithm, learning_rate=linear).learn(2 * B * T - 1)
    assert len(set(asked)) == 3 and min(asked) == 0


@for_both_algorithms
def test_a_picture_of_floats_is_read_the_same_by_a_policy_loaded_alone(
    algorithm: Any, tmp_path: Path
) -> None:
    class Picture(gym.Env[Any, Any]):
        observation_space = spaces.Box(-1, 1, (3, 36, 36), np.float32)
        action_space = spaces.Discrete(2)

    policy = algorithm("CnnPolicy", Picture(), memory_kwargs={"width": 16}).policy
    policy.save(tmp_path / "policy")
    loaded = type(policy).load(tmp_path / "policy")
    assert equal(policy.state_dict(), loaded.state_dict())


def test_target_kl_stops_an_update_early() -> None:
    for target_kl, n_updates in ((None, 8), (1e-9, 1)):
        model = build(target_kl=target_kl, n_epochs=8, learning_rate=1e-2)
        model.learn(B * T)
        assert model._n_updates == n_updates


class RatioOfRollouts(BaseCallback):
    """The largest distance of a probability ratio from 1 before an update."""

    error = 0.0

    def _on_step(self) -> bool:
        return True

    @torch.no_grad()
    def _on_rollout_end(self) -> None:
        policy: Any = self.model.policy
        segment: Any = self.model.rollout_buffer.segment(np.arange(B))  # type: ignore[attr-defined]
        said = policy.evaluate_rollout(
            segment.observations, segment.actions, segment.state, segment.episode_starts
        )
        ratio_BT = (said.log_prob_BT - segment.old_log_prob).exp()
        self.error = max(self.error, float((ratio_BT - 1).abs().max()))


@for_both_algorithms
@pytest.mark.parametrize("squash", [False, True])
def test_state_dependent_exploration(algorithm: Any, squash: bool, tmp_path: Path) -> None:
    model = build(
        algorithm,
        make_vec_env(PENDULUM, B, seed=0),
        use_sde=True,
        sde_sample_freq=4,
        policy_kwargs={"squash_output": squash},
    )
    ratio = RatioOfRollouts()
    assert_learns(model, callback=ratio)
    assert ratio.error < (1e-3 if squash else 1e-5)  # squashed actions are inverted by atanh
    assert_same_after_saving(model, tmp_path)


# environments


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy", "MultiInputPolicy"])
def test_an_environment_can_be_given_by_its_id(policy: str) -> None:
    model = MemoryPPO(policy, CORRIDOR, n_envs=3, n_steps=T, memory_kwargs={"width": 16})
    assert model.n_envs == 3
    assert_learns(model)
    assert MemoryA2C("MlpPolicy", "CartPole-v1").n_envs == 16


@for_both_algorithms
def test_an_environment_can_be_a_single_one(algorithm: Any) -> None:
    model = build(algorithm, gym.make("CartPole-v1"))
    assert model.n_envs == 1
    assert_learns(model)
    assert len(model.ep_info_buffer) > 0  # SB3 wraps it in a Monitor


@for_both_algorithms
def test_set_env_starts_episodes_there(algorithm: Any) -> None:
    model = build(algorithm)
    model.learn(2 * B * T)
    model.set_env(corridors(seed=9))
    assert_learns(model, 2, reset_num_timesteps=False)
    assert model.num_timesteps == 4 * B * T
    model.set_env(corridors(seed=10))
    model.learn(B * T, reset_num_timesteps=False)
    assert model.rollout_buffer.episode_starts[0].tolist() == [1] * B


def test_set_env_takes_what_an_agent_is_made_with() -> None:
    model = build(env=CORRIDOR, n_envs=3)
    for env in (CORRIDOR, gym.make_vec(CORRIDOR, num_envs=3)):
        model.set_env(env)
        model.learn(3 * T, reset_num_timesteps=False)
        assert model.rollout_buffer.episode_starts[0].tolist() == [1] * 3


@for_both_algorithms
def test_normalised_environments(algorithm: Any, tmp_path: Path) -> None:
    env = VecNormalize(make_vec_env(PENDULUM, B, seed=0))
    model = build(algorithm, env)
    assert_learns(model)
    assert model.get_vec_normalize_env() is env
    env.save(str(tmp_path / "normalize.pkl"))
    again = VecNormalize.load(str(tmp_path / "normalize.pkl"), make_vec_env(PENDULUM, 2, seed=0))
    again.training = False
    loaded = assert_same_after_saving(model, tmp_path)
    assert np.isfinite(evaluate_policy(loaded, again, n_eval_episodes=2)[0])


def test_an_id_is_made_as_often_as_the_agent_had_environments(tmp_path: Path) -> None:
    build(env=corridors(3)).save(tmp_path / "model")
    loaded = MemoryPPO.load(tmp_path / "model", env=CORRIDOR)
    assert loaded.n_envs == 3
    loaded.learn(3 * T)


def test_environments_of_an_id_have_the_seed_of_the_agent(tmp_path: Path) -> None:
    build().save(tmp_path / "model")

    def loaded(**kwargs: Any) -> dict[str, Tensor]:
        return parameters(MemoryPPO.load(tmp_path / "model", env=CORRIDOR, **kwargs).learn(B * T))

    def moved() -> dict[str, Tensor]:
        model = build()
        model.set_env(CORRIDOR)
        return parameters(model.learn(B * T))

    assert equal(loaded(), loaded()) and equal(moved(), moved())
    assert equal(loaded(seed=3), loaded(seed=3)) and not equal(loaded(seed=3), loaded(seed=4))


def test_predict_says_that_reset_of_gymnasium_returns_two() -> None:
    with pytest.raises(ValueError, match=r"got a tuple: .* as in obs, info = env.reset\(\)"):
        build().predict(gym.make(CORRIDOR).reset())


@pytest.mark.parametrize("starts", [[True], [[False] * B] * 2])
def test_predict_says_whose_episode_starts_are_missing(starts: Any) -> None:
    model = build()
    obs = model.get_env().reset()
    _, state = model.predict(obs)
    with pytest.raises(ValueError, match=rf"{B} observations with episode_start of shape"):
        model.predict(obs, state, episode_start=np.array(starts))


def test_the_memory_is_not_chosen_twice() -> None:
    with pytest.raises(TypeError, match="policy_kwargs has memory, memory_kwargs; give memory"):
        build(policy_kwargs={"memory": "lstm", "memory_kwargs": {}})


def test_sb3s_entry_points_read_the_memory() -> None:
    """Without a state they would answer for the first step of an episode, in silence."""
    model = build()
    obs = torch.as_tensor(model.get_env().reset(), device=model.device)
    state, starts = model.policy.initial_state(B), torch.ones(B, dtype=torch.bool)
    starts = starts.to(model.device)
    _, state = model.policy.get_distribution(obs, state, starts)
    went_on = ~starts
    distribution, _ = model.policy.get_distribution(obs, state, went_on)
    actions, values, log_prob, _ = model.policy(obs, state, went_on)
    torch.testing.assert_close(distribution.log_prob(actions), log_prob)
    torch.testing.assert_close(model.policy.predict_values(obs, state, went_on), values)
    for entry_point in (model.policy, model.policy.get_distribution, model.policy.predict_values):
        with pytest.raises(TypeError, match="missing 2 required"):
            entry_point(obs)


@for_both_algorithms
def test_a_script_that_seeds_for_all_gets_the_same_agent_again(algorithm: Any) -> None:
    def trained() -> dict[str, Tensor]:
        set_random_seed(0)
        return parameters(build(algorithm, seed=None).learn(2 * B * T))

    assert equal(trained(), trained())


def pickled(model: Any) -> Any:
    return cloudpickle.loads(cloudpickle.dumps(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@pytest.mark.parametrize(
    "env", [CORRIDOR, "CartPole-v1", "MiniGrid-MemoryS7-v0", gym.make_vec(CORRIDOR, num_envs=2)]
)
def test_a_copy_of_an_agent_goes_on_as_the_agent_does(copied: Any, env: Any) -> None:
    model = build(env=env, n_envs=2 if isinstance(env, str) else None)
    model.learn(2 * T)
    twin = copied(model)
    assert is_vecenv_wrapped(twin.get_env(), VecMonitor)
    inner = "envs" if env in ("CartPole-v1", "MiniGrid-MemoryS7-v0") else "vector_env"
    assert getattr(twin.get_env(), inner) is not getattr(model.get_env(), inner)
    if env == "MiniGrid-MemoryS7-v0":
        assert is_vecenv_wrapped(twin.get_env(), VecTransposeImage)
    learned = []
    for agent in (model, twin):
        torch.manual_seed(1)
        learned.append(parameters(agent.learn(2 * T, reset_num_timesteps=False)))
    assert equal(*learned)


def test_a_copy_of_a_monitor_writes_to_no_file(tmp_path: Path) -> None:
    monitor = CopyableMonitor(corridors(2).unwrapped, str(tmp_path / "results"))
    assert monitor.results_writer is not None and copy.deepcopy(monitor).results_writer is None
    monitor.close()


def test_the_rollout_buffer_shows_its_observations() -> None:
    model = build()
    assert model.rollout_buffer.observations.shape == (T, B, *model.observation_space.shape)
    model.learn(B * T)
    np.testing.assert_array_equal(model.rollout_buffer.observations[0], corridors().reset())
    with pytest.raises(NotImplementedError, match=r"have no memory; segments\(n_envs, rng\) gives"):
        model.rollout_buffer.get(B)

    class Dicts(gym.Env[Any, Any]):
        observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)})
        action_space = spaces.Discrete(2)

    shown = build(env=Dicts()).rollout_buffer.observations
    assert {key: part.shape for key, part in shown.items()} == {"a": (T, 1, 2), "b": (T, 1, 1)}


def test_options_for_the_optimizer_are_kept_beside_rms_prop() -> None:
    policy_kwargs = {"optimizer_kwargs": {"weight_decay": 0.1}}
    model = build(MemoryA2C, use_rms_prop=True, policy_kwargs=policy_kwargs)
    assert model.policy.optimizer.param_groups[0]["weight_decay"] == 0.1
    assert model.policy.optimizer.param_groups[0]["alpha"] == 0.99

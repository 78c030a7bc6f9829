"""SB3's contract over gymnasium vector environments, and marks that belong to observations."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from minigrid.core.constants import OBJECT_TO_IDX
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from expire_span.agents import GymnasiumVecEnv, make_vec_env
from expire_span.agents.vec_env import read_marks, split_infos
from expire_span.envs import ENVIRONMENTS
from games import for_every_game

CORRIDOR = "expire_span.envs:ExpireSpan/Corridor-v0"
SHORT = {"min_length": 4, "max_length": 7}


class Counting(gym.Env[Any, Any]):
    """Counts steps in a Dict observation; ends after `limit`."""

    observation_space = gym.spaces.Dict(
        {"count": gym.spaces.Box(0, 9, (1,)), "parity": gym.spaces.Discrete(2)}
    )
    action_space = gym.spaces.Discrete(2)

    def __init__(self, limit: int, truncates: bool, terminates: bool) -> None:
        self.limit, self.truncates, self.terminates = limit, truncates, terminates
        self.resets = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = (options or {}).get("start", 0)
        self.resets += 1
        return self._obs(), {"memory": {"cue": 0, "decision": -1}, "resets": self.resets}

    def step(self, action: Any) -> Any:
        self.count += 1
        over = self.count >= self.limit
        info = {"memory": {"cue": -1, "decision": self.count}, "place": np.full(2, self.count)}
        return self._obs(), 0.5, over and self.terminates, over and self.truncates, info

    def _obs(self) -> Any:
        return {"count": np.full(1, self.count, np.float32), "parity": np.int64(self.count % 2)}


def counting(limits: list[int], truncates: bool = False, terminates: bool = True) -> SyncVectorEnv:
    # copy=False: the vector environment writes every batch of observations to the same arrays
    return SyncVectorEnv(
        [partial(Counting, limit, truncates, terminates) for limit in limits],
        copy=False,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )


def without_marks(infos: list[dict[str, Any]]) -> list[dict[str, Any]]:
    marks = {"memory", "terminal_memory", "episode"}
    return [{key: info[key] for key in info if key not in marks} for info in infos]


def assert_infos_equal(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    for ours, theirs in zip(left, right, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


# the adapter


@for_every_game
@pytest.mark.parametrize("player", ["random", "oracle"])
def test_native_form_equals_sb3s_dummy_vec_env_of_single_forms(env_id: str, player: str) -> None:
    n, episodes = 4, 0
    native = make_vec_env(env_id, n, seed=3)
    dummy = VecMonitor(DummyVecEnv([lambda: gym.make(env_id)] * n))
    dummy.seed(3)
    obs, starts = native.reset(), np.ones(n, np.bool_)
    np.testing.assert_array_equal(obs, dummy.reset())
    assert native.unwrapped.reset_infos == dummy.unwrapped.reset_infos
    oracle: Any = load_env_creator(ENVIRONMENTS[env_id].oracle)()
    native.action_space.seed(0)
    most_steps = {"random": 1500, "oracle": 4000}[player]  # episodes can be longer
    while episodes < n and most_steps:
        most_steps -= 1
        actions = oracle.act(obs, starts)
        if player == "random":
            actions = np.stack([native.action_space.sample() for _ in range(n)])
        obs, rewards, starts, infos = native.step(actions)
        their_obs, their_rewards, their_dones, their_infos = dummy.step(actions)
        np.testing.assert_array_equal(obs, their_obs)
        np.testing.assert_array_equal(rewards, their_rewards)
        np.testing.assert_array_equal(starts, their_dones)
        assert (rewards.dtype, starts.dtype) == (their_rewards.dtype, their_dones.dtype)
        assert_infos_equal(without_marks(infos), without_marks(their_infos))
        ours, theirs = read_marks(native, infos, starts), read_marks(dummy, their_infos, starts)
        np.testing.assert_array_equal(ours, theirs)
        for i in np.flatnonzero(starts):
            assert infos[i]["terminal_memory"] == their_infos[i]["memory"]
            assert infos[i]["episode"]["l"] == their_infos[i]["episode"]["l"]
            assert infos[i]["episode"]["r"] == their_infos[i]["episode"]["r"]
        episodes += int(starts.sum())


@pytest.mark.parametrize(
    ("truncates", "terminates", "cut"),
    [(True, False, True), (False, True, False), (True, True, False)],
)
def test_end_of_an_episode_as_sb3_expects_it(truncates: bool, terminates: bool, cut: bool) -> None:
    env = GymnasiumVecEnv(counting([2, 3], truncates, terminates))
    env.reset()
    env.step(np.zeros(2, np.int64))
    obs, rewards, dones, infos = env.step(np.zeros(2, np.int64))
    assert dones.tolist() == [True, False] and dones.dtype == np.bool_
    assert rewards.tolist() == [0.5, 0.5] and rewards.dtype == np.float32
    assert isinstance(obs, dict)
    assert obs["count"].tolist() == [[0.0], [2.0]] and obs["parity"].tolist() == [0, 0]

    terminal = infos[0].pop("terminal_observation")
    assert terminal["count"].tolist() == [2.0] and terminal["parity"] == 0
    assert infos[0].pop("place").tolist() == [2, 2] and infos[1].pop("place").tolist() == [2, 2]
    assert infos[0] == {
        "memory": {"cue": 0, "decision": -1},
        "terminal_memory": {"cue": -1, "decision": 2},
        "TimeLimit.truncated": cut,
    }
    assert infos[1] == {"memory": {"cue": -1, "decision": 2}, "TimeLimit.truncated": False}
    assert env.reset_infos == [
        {"memory": {"cue": 0, "decision": -1}, "resets": resets} for resets in (2, 1)
    ]
    cue_B, decision_B = read_marks(env, infos, dones)
    assert cue_B.tolist() == [0, -1] and decision_B.tolist() == [-1, 2]


def test_observations_returned_are_not_the_environments_buffers() -> None:
    env = GymnasiumVecEnv(counting([2, 5]))
    first = env.reset()
    second, *_, infos = env.step(np.zeros(2, np.int64))
    env.step(np.zeros(2, np.int64))
    assert isinstance(first, dict) and first["count"].tolist() == [[0.0], [0.0]]
    assert isinstance(second, dict) and second["count"].tolist() == [[1.0], [1.0]]
    assert infos[1]["place"].tolist() == [1, 1]


def test_marks_belong_to_the_observation_returned() -> None:
    env = make_vec_env(CORRIDOR, 8, seed=0, env_kwargs=SHORT)
    singles = make_vec_env(CORRIDOR, 8, seed=0, env_kwargs=SHORT, wrapper_class=lambda env: env)
    assert isinstance(env.unwrapped, GymnasiumVecEnv)
    assert isinstance(singles.unwrapped, DummyVecEnv)
    rng = np.random.default_rng(0)
    for vec_env in (env, singles):
        vec_env.reset()
        cue_B, decision_B = read_marks(vec_env)
        assert cue_B.tolist() == [0] * 8 and decision_B.tolist() == [-1] * 8
        ends = 0
        for _ in range(300):
            obs, _, dones, infos = vec_env.step(rng.integers(3, size=8))
            cue_B, decision_B = read_marks(vec_env, infos, dones)
            assert cue_B.dtype == decision_B.dtype == np.int64
            np.testing.assert_array_equal(cue_B == 0, sees_ball(obs))
            ends += int(dones.sum())
        assert ends > 8


def sees_ball(obs: Any) -> NDArray[np.bool_]:
    seen: NDArray[np.bool_] = (obs.reshape(len(obs), -1, 3)[..., 0] == OBJECT_TO_IDX["ball"]).any(1)
    return seen


def test_environments_without_marks_have_none() -> None:
    env = make_vec_env("CartPole-v1", 2, seed=0)
    env.reset()
    assert read_marks(env)[0].tolist() == [-1, -1]
    _, _, dones, infos = env.step(np.zeros(2, np.int64))
    assert [marks.tolist() for marks in read_marks(env, infos, dones)] == [[-1, -1]] * 2


def test_seeds_are_used_once_and_options_reach_every_environment() -> None:
    env = make_vec_env(CORRIDOR, 16, seed=5, env_kwargs=SHORT)
    first, second = np.asarray(env.reset()), np.asarray(env.reset())
    assert env.seed(5) == list(range(5, 21))
    np.testing.assert_array_equal(env.reset(), first)
    np.testing.assert_array_equal(env.reset(), second)
    assert not np.array_equal(first, second)

    counting_env = GymnasiumVecEnv(counting([9, 9]))
    counting_env.set_options({"start": 4})
    for count in (4.0, 0.0):
        obs = counting_env.reset()
        assert isinstance(obs, dict) and obs["count"].tolist() == [[count], [count]]
    counting_env.set_options([{"start": 4}, {"start": 5}])
    with pytest.raises(ValueError, match="different options for different environments"):
        counting_env.reset()


def test_environments_that_reset_later_are_refused_with_the_way_out() -> None:
    sync = SyncVectorEnv([lambda: gym.make("CartPole-v1")])
    with pytest.raises(ValueError, match=r"NEXT_STEP of .*needs AutoresetMode.SAME_STEP.*make_vec"):
        GymnasiumVecEnv(sync)


def test_attributes_and_methods_are_those_of_the_vector_environment() -> None:
    env = GymnasiumVecEnv(gym.make_vec(CORRIDOR, num_envs=3, render_mode="rgb_array", tile_size=4))
    env.reset()
    assert env.get_attr("max_length") == [200] * 3 and env.get_attr("max_length", 1) == [200]
    assert env.env_is_wrapped(gym.Wrapper) == [False] * 3
    assert len(env.env_method("render", indices=[0, 2])) == 2
    picture = env.render()
    assert picture is not None and picture.shape == (40, 2 * 202 * 4, 3)

    env.set_attr("tile_size", 8)
    assert env.get_attr("tile_size") == [8] * 3
    with pytest.raises(ValueError, match=r"indices = \[1\] leave out some of the 3"):
        env.set_attr("tile_size", 8, indices=1)
    with pytest.raises(AttributeError, match="has no method 'action_masks'"):
        env.env_method("action_masks")
    assert not env.has_attr("nothing")


def test_infos_go_to_the_environments_their_masks_name() -> None:
    numbers = np.array([1, 2, 3])
    rows = split_infos(
        {
            "everyone": numbers,
            "some": numbers,
            "_some": np.array([True, False, True]),
            "nested": {"inner": numbers * 2, "_inner": np.array([False, True, True])},
            "_nested": np.array([False, True, True]),
            "shared": "text",
            "_private": numbers,
        },
        3,
    )
    assert rows == [
        {"everyone": 1, "some": 1, "shared": "text", "_private": 1},
        {"everyone": 2, "nested": {"inner": 4}, "shared": "text", "_private": 2},
        {"everyone": 3, "some": 3, "nested": {"inner": 6}, "shared": "text", "_private": 3},
    ]


def test_infos_do_not_change_when_the_environment_reuses_its_arrays() -> None:
    one, two = np.zeros(2), np.zeros((2, 3))
    rows = split_infos({"one": one, "two": two}, 2)
    one[:], two[:] = 1, 1
    assert rows[0]["one"] == 0 and not rows[0]["two"].any()


# with SB3's wrappers, and through make_vec_env


@pytest.mark.parametrize("wrapper_class", [None, lambda env: env], ids=["native", "singles"])
def test_monitor_reports_the_returns_and_lengths_that_were_seen(wrapper_class: Any) -> None:
    env = make_vec_env(CORRIDOR, 4, seed=0, env_kwargs=SHORT, wrapper_class=wrapper_class)
    assert isinstance(env, VecMonitor)
    env.reset()
    rng, episodes = np.random.default_rng(0), 0
    returns, lengths = np.zeros(4), np.zeros(4)
    while episodes < 12:
        _, rewards, dones, infos = env.step(rng.integers(3, size=4))
        returns, lengths = returns + rewards, lengths + 1
        for i in np.flatnonzero(dones):
            assert infos[i]["episode"]["r"] == returns[i]
            assert infos[i]["episode"]["l"] == lengths[i]
            assert infos[i]["is_success"] is bool(returns[i] == 1)
            returns[i] = lengths[i] = 0
            episodes += 1


def test_normalisation_works_on_top_and_leaves_marks_readable() -> None:
    env: VecEnv = make_vec_env(CORRIDOR, 4, seed=0, env_kwargs=SHORT)
    env = VecNormalize(env)
    obs: VecEnvObs = env.reset()
    assert isinstance(obs, np.ndarray) and obs.dtype == np.float32
    assert read_marks(env)[0].tolist() == [0] * 4
    rng, ends = np.random.default_rng(0), 0
    for _ in range(200):
        obs, _, dones, infos = env.step(rng.integers(3, size=4))
        ends += int(dones.sum())
        for i in np.flatnonzero(dones):
            assert infos[i]["terminal_observation"].dtype == np.float32
            assert read_marks(env, infos, dones)[0][i] == 0
    assert ends and isinstance(obs, np.ndarray) and np.isfinite(obs).all()


def test_native_forms_that_reset_later_give_way_to_single_environments() -> None:
    # CartPole-v1 has a vector form of its own, which resets in the next step
    assert isinstance(make_vec_env("CartPole-v1", 2).unwrapped, DummyVecEnv)


def test_minigrid_ids_work_without_importing_minigrid_and_lose_their_text() -> None:
    env = make_vec_env("MiniGrid-MemoryS7-v0", 2, seed=0)
    assert isinstance(env.observation_space, gym.spaces.Box)
    obs = env.reset()
    assert isinstance(obs, np.ndarray) and obs.shape == (2, 7, 7, 3)


def test_minigrid_episodes_succeed_when_their_end_is_paid_for() -> None:
    env = make_vec_env("MiniGrid-MemoryS7-v0", 8, seed=0)
    env.reset()
    rng = np.random.default_rng(0)
    paid: set[bool] = set()
    while paid != {False, True}:
        _, rewards, dones, infos = env.step(rng.integers(0, 3, size=8))
        assert all(("is_success" in info) == done for info, done in zip(infos, dones, strict=True))
        for i in np.flatnonzero(dones):
            assert infos[i]["is_success"] is bool(rewards[i] > 0)
            paid.add(infos[i]["is_success"])


def test_unknown_ids_are_answered_with_the_nearest_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"'CartPole-v9' is not registered; near it: .*CartPole-v1"
    ):
        make_vec_env("CartPole-v9", 1)
    with pytest.raises(ValueError, match=r"near it: ExpireSpan/Corridor-v0.*pprint_registry"):
        make_vec_env("expire_span.envs:ExpireSpan/Coridor-v0", 1)
    with pytest.raises(ValueError, match="n_envs = 0 is below 1"):
        make_vec_env("CartPole-v1", 0)

"""Environments as others make them: without a Monitor, with whole rewards, with own marks.

B environments, T steps of a rollout, N steps of an episode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.atari_wrappers import ClipRewardEnv, EpisodicLifeEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from expire_span.agents import GymnasiumVecEnv, MemoryPPO, NonFiniteError
from expire_span.agents.checks import check_finite_observations
from expire_span.agents.retention import MEASURED, episode_tallies, tally_shares
from expire_span.agents.vec_env import read_marks
from expire_span.training import evaluate_retention

B, T, N = 4, 16, 5
SMALL: dict[str, Any] = {"memory_kwargs": {"width": 16}, "n_steps": T, "seed": 0}
BOX = spaces.Box(-1, 1, (3,), np.float32)


class Foreign(gym.Env[Any, Any]):
    """Random observations; episodes of N steps that are cut, with what `last` says at their end."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any] = BOX, mark: Any = None, **last: Any) -> None:
        self.observation_space = space
        self.info = {} if mark is None else {"memory": mark}
        self.last = last

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.taken = 0
        return self.observation_space.sample(), dict(self.info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken += 1
        ends = self.taken == N
        info = self.info | (self.last if ends else {})
        return self.observation_space.sample(), 1, False, ends, info


def foreign(*args: Any, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: Foreign(*args, **kwargs)] * B)


class WholeRewards(DummyVecEnv):
    """Hands rewards out as `SubprocVecEnv` does, in the type they came in."""

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = super().step_wait()
        self.given = rewards.astype(np.int64)
        return obs, self.given, dones, infos


class Coefs(BaseCallback):
    """The pressure on spans, rollout by rollout."""

    def _on_training_start(self) -> None:
        self.coefs: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert isinstance(self.model, MemoryPPO)
        self.coefs.append(self.model.span_control.coef)


@pytest.mark.parametrize("stats_window_size", [10, 100])
@pytest.mark.parametrize("monitored", [True, False])
def test_memories_are_pressed_with_and_without_a_monitor(
    monitored: bool, stats_window_size: int
) -> None:
    env: VecEnv = VecMonitor(foreign()) if monitored else foreign()
    coefs = Coefs()
    model = MemoryPPO("MlpPolicy", env, stats_window_size=stats_window_size, **SMALL)
    model.learn(5 * B * T, callback=coefs)
    assert coefs.coefs[0] == 0 and coefs.coefs[-1] > 0  # after 20 episodes
    assert model._returns is not None and set(model._returns.recent) == {float(N)}


class Lives(gym.Env[Any, Any]):
    """A game of 5 lives of N steps each, worth 7 points a step."""

    observation_space, action_space = BOX, spaces.Discrete(2)

    def __init__(self) -> None:
        self.ale = SimpleNamespace(lives=lambda: 5 - self.taken // N)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.taken = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken += 1
        return self.observation_space.sample(), 7.0, self.taken == 5 * N, False, {}


def test_lives_are_episodes_to_the_agent_and_games_are_what_returns_are_of() -> None:
    env = DummyVecEnv([lambda: ClipRewardEnv(EpisodicLifeEnv(Monitor(Lives())))] * B)
    model = MemoryPPO("MlpPolicy", env, **SMALL)
    model.learn(4 * B * T)
    assert model._returns is not None and set(model._returns.recent) == {35.0 * N}
    evaluation = evaluate_retention(model, env, 6)
    assert (evaluation.mean_reward, evaluation.episodes) == (evaluate_policy(model, env, 6)[0], 6)
    assert evaluation.mean_length == 5 * N


def test_a_time_limit_outside_of_the_monitor_ends_episodes() -> None:
    env = DummyVecEnv([lambda: TimeLimit(Monitor(Lives()), 2 * N)] * B)
    model = MemoryPPO("MlpPolicy", env, **SMALL)
    model.learn(4 * B * T)
    assert model._returns is not None and set(model._returns.recent) == {14.0 * N}
    assert evaluate_retention(model, env, 6).mean_reward == 14.0 * N


def test_returns_are_of_rewards_before_they_are_normalised() -> None:
    env = VecNormalize(DummyVecEnv([lambda: TimeLimit(Monitor(Lives()), 2 * N)] * B))
    model = MemoryPPO("MlpPolicy", env, **SMALL)
    model.learn(4 * B * T)
    assert model._returns is not None and set(model._returns.recent) == {14.0 * N}


def test_lives_lost_before_a_time_limit_count() -> None:
    env = DummyVecEnv([lambda: EpisodicLifeEnv(TimeLimit(Monitor(Lives()), 2 * N + 3))] * B)
    model = MemoryPPO("MlpPolicy", env, **SMALL)
    model.learn(4 * B * T)
    # a life begins with a step of the wrapper's own, which is not the agent's
    assert model._returns is not None and set(model._returns.recent) == {7.0 * (2 * N + 1)}


def test_whole_rewards_are_learned_from_and_left_as_they_are() -> None:
    env = WholeRewards([lambda: Foreign()] * B)
    model = MemoryPPO("MlpPolicy", env, **SMALL)
    with torch.no_grad():
        model.policy.value_net.weight.zero_()
        model.policy.value_net.bias.fill_(3.0)
    model.learn(B * T)
    cut = 1 + model.gamma * 3
    assert model.rollout_buffer.rewards[N - 1].tolist() == pytest.approx([cut] * B)
    assert env.given.tolist() == [1] * B


class StopAtTheEnd(BaseCallback):
    """Stops at the step that ends the first episodes."""

    def _on_step(self) -> bool:
        return self.n_calls < N


def test_an_episode_that_ends_as_a_callback_stops_is_not_remembered_in_the_next() -> None:
    model = MemoryPPO("MlpPolicy", foreign(), **SMALL)
    model.learn(B * T, callback=StopAtTheEnd())
    assert model.num_timesteps == B * N
    assert model._last_episode_starts is not None and model._last_episode_starts.all()
    model.learn(B * T, reset_num_timesteps=False)
    assert model.rollout_buffer.episode_starts[0].tolist() == [1] * B
    assert model.rollout_buffer.episode_starts[N].tolist() == [1] * B


def test_a_dict_is_read_under_any_name_of_the_policy() -> None:
    env = foreign(spaces.Dict({"place": BOX, "kind": spaces.Discrete(3)}))
    model = MemoryPPO("MlpPolicy", env, **SMALL)
    assert model.learn(B * T).num_timesteps == B * T


def test_a_vector_environment_of_gymnasium_is_taken() -> None:
    native = gym.make_vec("expire_span.envs:ExpireSpan/Corridor-v0", B)
    model = MemoryPPO("MlpPolicy", native, **SMALL)
    env = model.get_env()
    assert env is not None and isinstance(env.unwrapped, GymnasiumVecEnv)
    assert model.learn(B * T).num_timesteps == B * T
    late = gym.make_vec(
        "CartPole-v1", B, "sync", vector_kwargs={"autoreset_mode": AutoresetMode.NEXT_STEP}
    )
    with pytest.raises(ValueError, match=r"SB3 needs AutoresetMode\.SAME_STEP"):
        MemoryPPO("MlpPolicy", late, **SMALL)


@pytest.mark.parametrize(
    "mark",
    [
        3,
        {"cue": "red", "decision": -1},
        {"cue": "3"},
        {"cue": None},
        {"cue": 1.7},
        {"decision": [1, 2]},
        {"cue": 2**63},
        {"Cue": 1, "decision": 1},
    ],
)
def test_marks_that_mark_nothing_are_named(mark: Any) -> None:
    model = MemoryPPO("MlpPolicy", foreign(mark=mark), **SMALL)
    with pytest.raises(ValueError, match=r'info\["memory"\] = .* of environment 0 marks nothing'):
        model.learn(B * T)


@pytest.mark.parametrize("number", [1, True, 1.0, np.uint8(1)])
def test_marks_are_whole_numbers_of_any_type(number: Any) -> None:
    env = foreign(mark={"cue": number})
    env.reset()
    cue_B, decision_B = read_marks(env)
    assert cue_B.dtype == decision_B.dtype == np.int64
    assert cue_B.tolist() == [1] * B and decision_B.tolist() == [-1] * B


@pytest.mark.parametrize("tallies", [5, [1], {1: 2}, None])
def test_tallies_that_tally_nothing_are_named(tallies: Any) -> None:
    with pytest.raises(
        ValueError, match=r'info\["tallies"\] = .* tallies nothing: it must be a dict'
    ):
        episode_tallies({"tallies": tallies})


@pytest.mark.parametrize("count", [0.75, "x"])
def test_tallies_that_are_no_whole_numbers_are_named(count: Any) -> None:
    model = MemoryPPO("MlpPolicy", foreign(tallies={"apples": count}), **SMALL)
    with pytest.raises(ValueError, match=f"apples = {count!r}, which must be a whole number"):
        model.learn(B * T)


class LateMarks(Foreign):
    """Marks no observation of a reset."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        return super().reset(**kwargs)[0], {}


@pytest.mark.parametrize(
    "mark", [{"cue": 0, "decison": 0}, {"Cue": 1}, {1: 2}, 3, "cue", ["cue"], {"cue": 0.5}]
)
def test_marks_that_mark_nothing_are_named_at_any_step(mark: Any) -> None:
    model = MemoryPPO("MlpPolicy", DummyVecEnv([lambda: LateMarks(mark=mark)] * B), **SMALL)
    with pytest.raises(ValueError, match=r'info\["memory"\] = .* of environment 0 marks nothing'):
        model.learn(B * T)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, f"which retention/{name} is measured under already") for name in MEASURED),
        ("_apples", "which begins with _, as the masks"),
        ("a" * 31, "whose 31 letters are above 30"),
        ("a" * 31 + "_of", "whose 31 letters are above 30"),
    ],
)
def test_tallies_that_could_not_be_logged_by_their_name_are_refused(name: str, reason: str) -> None:
    model = MemoryPPO("MlpPolicy", foreign(tallies={"apples": 1, name: 1}), **SMALL)
    message = rf'info\["tallies"\] has the name \'{name}\', {reason}.*; give it another name'
    with pytest.raises(ValueError, match=message):
        model.learn(B * T)


def test_tallies_of_long_names_that_begin_alike_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["a" * 29 + "b", "a" * 29 + "c"]
    tallies = {names[0]: 1, names[1]: 3, f"{names[1]}_of": 4}
    MemoryPPO("MlpPolicy", foreign(tallies=tallies), verbose=1, **SMALL).learn(2 * B * T)
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)


def test_tallies_are_the_same_from_a_vector_environment_of_gymnasium() -> None:
    def tallied(i: int) -> gym.Env[Any, Any]:
        return TimeLimit(Foreign(tallies={"apples": i, "apples_of": 2}), N)

    made: list[Callable[[], gym.Env[Any, Any]]]
    made = [functools.partial(tallied, i) for i in range(B)]
    native = SyncVectorEnv(made, autoreset_mode=AutoresetMode.SAME_STEP)
    for env in (DummyVecEnv(made), native):
        model = MemoryPPO("MlpPolicy", env, **SMALL).learn(B * T)
        assert model._tracker is not None
        assert tally_shares(model._tracker.episodes) == {"apples": 0.75}


def test_only_what_a_tally_is_divided_by_is_no_tally() -> None:
    episodes = [{"apples": 1, "apples_of": 4, "shade_of": 6}, {"apples": 1, "apples_of": 4}]
    assert tally_shares(episodes) == {"apples": 0.25, "shade_of": 3}


@pytest.mark.parametrize(
    ("answer", "monitored"),
    [
        (NotImplementedError(), False),
        (AttributeError("env_is_wrapped"), False),
        (False, False),
        (True, True),
        ([True] * (B - 1) + [False], False),
    ],
)
def test_a_vector_environment_may_know_little_of_wrappers(answer: Any, monitored: bool) -> None:
    class Bare(DummyVecEnv):
        def env_is_wrapped(self, *_: Any, **__: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

    model = MemoryPPO("MlpPolicy", Bare([lambda: Foreign()] * B), **SMALL)
    model.learn(B * T)
    assert model._returns is not None and model._returns.monitored is monitored


class Counts(Foreign):
    """Shows the step it is at, as `shown` gives it."""

    def __init__(self, space: spaces.Space[Any], shown: Callable[[float], Any]) -> None:
        super().__init__(space)
        self.shown = shown

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**kwargs)
        return self.shown(0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, *rest = super().step(action)
        return self.shown(self.taken / N), *rest


ONE = spaces.Box(-1, 1, (1,), np.float32)


@pytest.mark.parametrize(
    ("space", "shown", "loose"),
    [
        (ONE, lambda x: np.array([x], np.float32), float),
        (ONE, lambda x: np.array([x], np.float32), lambda x: np.array(x, np.float32)),
        (
            spaces.Dict({"step": ONE}),
            lambda x: {"step": np.array([x], np.float32)},
            lambda x: {"step": x},
        ),
    ],
    ids=["float", "0-d array", "Dict"],
)
def test_a_number_may_come_without_its_axis(space: Any, shown: Any, loose: Any) -> None:
    def learned(shows: Any) -> dict[str, torch.Tensor]:
        env = DummyVecEnv([lambda: Counts(space, shows)] * B)
        return MemoryPPO("MlpPolicy", env, **SMALL).learn(B * T).policy.state_dict()

    right, other = learned(shown), learned(loose)
    assert all(torch.equal(part, other[name]) for name, part in right.items())


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_half_precision_is_read_and_checked_as_any_other() -> None:
    space = spaces.Box(-1, 1, (3,), np.float16)
    MemoryPPO("MlpPolicy", foreign(space), **SMALL).learn(B * T)
    largest = np.finfo(np.float16).max
    check_finite_observations(np.array([[largest, -largest]]), 0)
    for value in (np.inf, -np.inf, np.nan):
        with pytest.raises(NonFiniteError, match=r"entry \(1,\) = .* is not finite"):
            check_finite_observations(np.array([[0, value]], np.float16), 0)


def test_without_marks_nothing_is_said_of_their_precision() -> None:
    logged: set[str] = set()

    class Keys(BaseCallback):
        def _on_step(self) -> bool:
            logged.update(self.logger.name_to_value)
            return True

    MemoryPPO("MlpPolicy", foreign(), **SMALL).learn(3 * B * T, callback=Keys())
    assert "memory/live_mean" in logged and "retention/precision" not in logged

"""Invariants of every registered environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils.env_checker import check_env as check_with_gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.env_checker import check_env as check_with_sb3

from expire_span.envs import ENVIRONMENTS
from expire_span.envs.language import decode, encode
from games import GAMES, for_every_game

CORRIDOR, PORTAL = "ExpireSpan/Corridor-v0", "ExpireSpan/Portal-v0"
INSTRUCTION = "ExpireSpan/Instruction-v0"

CASES: list[Any] = [pytest.param(env_id, {}, id=env_id) for env_id in GAMES] + [
    pytest.param(CORRIDOR, kwargs, id=f"Corridor-{'-'.join(map(str, kwargs.values()))}")
    for kwargs in (
        {"min_length": 3, "max_length": 3},
        {"min_length": 3, "max_length": 8, "shuffle_goals": True},
        {"min_length": 4, "max_length": 12, "view_size": 5, "shuffle_goals": True},
        {"min_length": 3, "max_length": 9, "view_size": 7},
        {"min_length": 9, "max_length": 9, "view_size": 11},
    )
]
CASES += [
    pytest.param(PORTAL, kwargs, id=f"Portal-{'-'.join(map(str, kwargs.values()))}")
    for kwargs in (
        {"n_rooms": 1},
        {"n_rooms": 2, "room_size": 5, "view_size": 5},
        {"n_rooms": 4, "room_size": 5, "view_size": 7},
    )
]
CASES.append(pytest.param("ExpireSpan/Collision-v0", {"n_questions": 1}, id="Collision-1"))
CASES += [
    pytest.param(INSTRUCTION, kwargs, id=f"Instruction-{'-'.join(map(str, kwargs.values()))}")
    for kwargs in (
        {"walk": "agent", "n_rooms": 3, "n_instructions": 4},
        {"n_characters": 24, "n_rooms": 9, "max_open": 24, "n_instructions": 30, "ask_rate": 0.4},
        {"n_characters": 4, "n_rooms": 2, "max_open": 1, "correct_reward": 0.5, "false_reward": -1},
        {"n_characters": 8, "group_size": 4, "ask_rate": 0.3},
    )
]
"""Every game with its own arguments, and further arguments worth trying."""

for_every_case = pytest.mark.parametrize(("env_id", "kwargs"), CASES)
for_every_text_case = pytest.mark.parametrize(
    ("env_id", "kwargs"), [case for case in CASES if "Instruction" in case.id]
)
for_every_picture_case = pytest.mark.parametrize(
    ("env_id", "kwargs"), [case for case in CASES if "Instruction" not in case.id]
)


def vector_form(env_id: str, n: int, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    return gym.make_vec(
        env_id, num_envs=n, vectorization_mode="vector_entry_point", **kwargs
    ).unwrapped


def single_forms(env_id: str, n: int, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    return SyncVectorEnv(
        [lambda: gym.make(env_id, **kwargs)] * n, autoreset_mode=AutoresetMode.SAME_STEP
    )


def oracle_of(env_id: str, **kwargs: Any) -> Any:
    make_oracle: Callable[..., Any] = load_env_creator(ENVIRONMENTS[env_id].oracle)
    return make_oracle(**kwargs)


def documented(env_id: str, **kwargs: Any) -> Any:
    return gym.make(env_id, **kwargs).unwrapped


def oracle_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """What an oracle has to be told of an environment's arguments."""
    told = {"room_size"} if "walk" not in kwargs else {"walk", "n_rooms"}
    return {key: value for key, value in kwargs.items() if key in told}


def some_actions(env: VectorEnv[Any, Any, Any], rng: np.random.Generator) -> NDArray[np.int64]:
    """An action at random for every environment."""
    space: Any = env.single_action_space
    n_actions = np.asarray(getattr(space, "nvec", space.n if hasattr(space, "n") else None))
    return rng.integers(n_actions, size=(env.num_envs, *n_actions.shape))


def play_to_the_end(
    env: VectorEnv[Any, Any, Any], oracle: Any, n_episodes: int, seed: int = 0
) -> tuple[list[float], list[bool]]:
    """Returns and successes of the first `n_episodes` to end."""
    obs, _ = env.reset(seed=seed)
    starts = np.ones(env.num_envs, np.bool_)
    running = np.zeros(env.num_envs)
    returns: list[float] = []
    successes: list[bool] = []
    while len(returns) < n_episodes:
        obs, rewards, terminated, truncated, infos = env.step(oracle.act(obs, starts))
        starts = terminated | truncated
        running += rewards
        returns += running[starts].tolist()
        if starts.any():
            successes += infos["final_info"]["is_success"][starts].tolist()
        running[starts] = 0
    return returns[:n_episodes], successes[:n_episodes]


def assert_same(left: Any, right: Any, where: str) -> None:
    """Equal in value, type and dtype; dicts, tuples and arrays of objects entry by entry."""
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}[{key!r}]")
    elif isinstance(left, tuple) or (isinstance(left, np.ndarray) and left.dtype == object):
        assert len(left) == len(right), where
        for i, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype, f"{where}: {left.dtype}, {right.dtype}"
        np.testing.assert_array_equal(left, right, err_msg=where)
    else:
        assert left == right, where


# every environment


@for_every_game
@pytest.mark.filterwarnings("ignore:The system font")  # MiniGrid's window asks for a file name
@pytest.mark.filterwarnings("error")
def test_checkers_of_gymnasium_and_sb3_pass_without_a_warning(
    env_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # the checker opens a window
    check_with_gymnasium(gym.make(env_id).unwrapped)
    check_with_sb3(gym.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_id_names_its_module_for_those_who_did_not_import_it(env_id: str) -> None:
    env = gym.make(f"expire_span.envs:{env_id}")
    assert env.spec is not None and env.spec.id == env_id
    assert gym.make_vec(f"expire_span.envs:{env_id}", num_envs=3).num_envs == 3


@for_every_case
def test_same_seed_and_actions_same_episode(env_id: str, kwargs: dict[str, Any]) -> None:
    first, second = (gym.make(env_id, **kwargs) for _ in range(2))
    first.action_space.seed(0)
    for seed in (7, None, None):
        assert_same(first.reset(seed=seed), second.reset(seed=seed), "reset")
        over, steps = False, 0
        while not over and steps < 3000:
            action = first.action_space.sample()
            steps += 1
            left, right = first.step(action), second.step(action)
            for i in range(5):
                assert_same(left[i], right[i], f"step[{i}]")
            over = left[2] or left[3]


@for_every_case
@pytest.mark.parametrize("player", ["random", "oracle", "both"])
def test_vector_form_equals_single_forms_step_by_step(
    env_id: str, kwargs: dict[str, Any], player: str
) -> None:
    n, step, episodes = 5, 0, 0
    native, sync = vector_form(env_id, n, **kwargs), single_forms(env_id, n, **kwargs)
    assert native.observation_space == sync.observation_space
    assert native.single_action_space == sync.single_action_space
    oracle, rng = oracle_of(env_id, **oracle_arguments(kwargs)), np.random.default_rng(1)
    assert_same(native.reset(seed=3), sync.reset(seed=3), "reset")
    obs, starts = native.reset(seed=11)[0], np.ones(n, np.bool_)
    assert_same(obs, sync.reset(seed=11)[0], "obs")

    while step < 300 or (episodes < 2 * n and step < 3000):
        actions = oracle.act(obs, starts)
        wander = {"random": 1.0, "oracle": 0.0, "both": 0.1}[player]
        wanders = rng.random(n) < wander
        actions[wanders] = some_actions(native, rng)[wanders]
        left, right = native.step(actions), sync.step(actions)
        for name, ours, theirs in zip(
            ("obs", "rewards", "terminated", "truncated", "infos"), left, right, strict=True
        ):
            assert_same(ours, theirs, f"step {step}: {name}")
        obs, starts = left[0], left[2] | left[3]
        episodes += int(starts.sum())
        step += 1


@for_every_game
def test_vector_form_takes_seeds_as_gymnasium_does(env_id: str) -> None:
    native, sync = vector_form(env_id, 3), single_forms(env_id, 3)
    for seed in (5, [9, 8, 7], [4, None, 2], None):
        options = {"reset_mask": np.array([True, False, True])} if seed is None else None
        left = native.reset(seed=seed, options=options)  # type: ignore[arg-type]
        right = sync.reset(seed=seed, options=options and dict(options))  # type: ignore[arg-type]
        assert_same(left, right, f"seed {seed}")
    with pytest.raises(ValueError, match="seed has 2 entries for num_envs = 3"):
        native.reset(seed=[1, 2])  # type: ignore[arg-type]


@for_every_game
def test_arrays_returned_stay_as_they_are(env_id: str) -> None:
    env = vector_form(env_id, 4)
    obs, infos = env.reset(seed=0)
    kept = obs.copy(), infos["memory"]["cue"].copy()
    rng = np.random.default_rng(0)
    for _ in range(5):
        env.step(some_actions(env, rng))
    np.testing.assert_array_equal(obs, kept[0])
    np.testing.assert_array_equal(infos["memory"]["cue"], kept[1])


@for_every_game
def test_unseeded_environments_differ(env_id: str) -> None:
    # 64 environments under one generator state would all see the same cue
    obs, _ = vector_form(env_id, 64).reset()
    assert len(np.unique(obs, axis=0)) > 1


@for_every_case
def test_oracle_earns_the_documented_return(env_id: str, kwargs: dict[str, Any]) -> None:
    env = vector_form(env_id, 32, **kwargs)
    oracle = oracle_of(env_id, **oracle_arguments(kwargs))
    n_episodes = 32 if "Instruction" in env_id else 200  # of thousands of steps
    returns, successes = play_to_the_end(env, oracle, n_episodes)
    assert returns == [documented(env_id, **kwargs).OPTIMAL_RETURN] * n_episodes
    assert all(successes)


@for_every_case
def test_oracle_without_memory_earns_what_is_documented_for_it(
    env_id: str, kwargs: dict[str, Any]
) -> None:
    n_episodes = 1000
    if "Instruction" in env_id:  # silence is best: every episode runs to its limit
        n_episodes, kwargs = 64, {**kwargs, "max_steps": 500}
    env = vector_form(env_id, min(n_episodes, 250), **kwargs)
    oracle = oracle_of(env_id, remember=False, seed=0, **oracle_arguments(kwargs))
    returns, _ = play_to_the_end(env, oracle, n_episodes)
    expected = documented(env_id, **kwargs).RETURN_WITHOUT_MEMORY
    # rewards are at most 1, so a return's deviation is at most half the best; five standard errors
    best = documented(env_id, **kwargs).OPTIMAL_RETURN
    assert abs(np.mean(returns) - expected) < 5 * 0.5 * best / np.sqrt(n_episodes)


@for_every_text_case
def test_rendering_in_text_gives_what_is_observed(env_id: str, kwargs: dict[str, Any]) -> None:
    env = gym.make(env_id, render_mode="ansi", **kwargs)
    native = vector_form(env_id, 2, render_mode="ansi", **kwargs)
    obs, _ = env.reset(seed=4)
    native.reset(seed=4)
    for _ in range(50):
        sentence: Any = env.render()
        assert sentence == decode(obs) and np.array_equal(encode(sentence), obs)
        frames: Any = native.render()
        assert frames[0] == sentence
        silence = env.action_space.sample() * 0
        obs = env.step(silence)[0]
        native.step(np.stack([silence, silence]))
    assert vector_form(env_id, 2, **kwargs).render() is None


@for_every_picture_case
def test_rendering_gives_pictures_of_one_size_in_both_forms(
    env_id: str, kwargs: dict[str, Any]
) -> None:
    env = gym.make(env_id, render_mode="rgb_array", tile_size=8, **kwargs)
    native = vector_form(env_id, 2, render_mode="rgb_array", tile_size=8, **kwargs)
    native.reset(seed=4)
    shapes = set()
    for seed in (4, None, None):
        env.reset(seed=seed)
        frame: Any = env.render()
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.any()
        shapes.add(frame.shape)
        if seed == 4:
            for action in (2, 0, 2, 1):
                env.step(action)
                native.step(np.full(2, action))
            frames: Any = native.render()
            np.testing.assert_array_equal(frames[0], env.render())
    assert len(shapes) == 1
    assert vector_form(env_id, 2, **kwargs).render() is None

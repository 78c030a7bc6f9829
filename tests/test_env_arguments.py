"""What no environment can play is refused in both forms, by name; parametrised over the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import load_env_creator

from expire_span.envs import ENVIRONMENTS
from expire_span.envs.instruction_world import World
from games import ALIASES, GAMES, for_every_game

N = 3


def defaults(env_id: str) -> dict[str, Any]:
    """Arguments of an environment's class and their defaults."""
    parameters = inspect.signature(load_env_creator(ENVIRONMENTS[env_id].entry_point)).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    if "arguments" in defaults:  # handed on
        defaults |= {field.name: field.default for field in fields(World)}
    return defaults


def numbers(env_id: str) -> list[tuple[str, float]]:
    """Arguments that are numbers by default, pictures' size aside, and their defaults."""
    return [
        (name, default)
        for name, default in defaults(env_id).items()
        if type(default) in (int, float) and name != "tile_size"
    ]


ARGUMENTS = [(env_id, *argument) for env_id in GAMES for argument in numbers(env_id)]


def test_one_game_has_two_ids_only_where_it_is_listed() -> None:
    """So tests of every game may leave the second out."""
    games = {
        env_id: replace(game, arguments={**defaults(env_id), **game.arguments})
        for env_id, game in ENVIRONMENTS.items()
    }
    ids = list(games)
    same = {b: a for i, a in enumerate(ids) for b in ids[i + 1 :] if games[a] == games[b]}
    assert same == ALIASES


@pytest.mark.parametrize(("env_id", "name", "default"), ARGUMENTS)
@pytest.mark.parametrize("how_many", [None, N])
def test_numbers_of_the_wrong_kind_are_named(
    env_id: str, name: str, default: float, how_many: int | None
) -> None:
    wrong: list[Any] = [float("nan"), float("inf"), "3", None, np.complex128(default)]
    if isinstance(default, int):
        wrong += [default + 0.5, float(default), True]
    for value in wrong:
        with pytest.raises(ValueError, match=f"{name} = .*must be a (whole|finite) number"):
            if how_many is None:
                gym.make(env_id, **{name: value})
            else:
                gym.make_vec(env_id, how_many, **{name: value})


@pytest.mark.parametrize(("env_id", "name", "default"), ARGUMENTS)
def test_numbers_of_numpy_are_numbers(env_id: str, name: str, default: float) -> None:
    kwargs: dict[str, Any] = {name: np.array(default)[()]}
    for env in (gym.make(env_id, **kwargs), gym.make_vec(env_id, N, **kwargs)):
        env.reset(seed=0)
        env.step(env.action_space.sample())


@pytest.mark.parametrize("num_envs", [2.5, float("nan"), True])
@for_every_game
def test_number_of_environments_is_whole(env_id: str, num_envs: Any) -> None:
    make: Callable[..., Any] = load_env_creator(ENVIRONMENTS[env_id].vector_entry_point)
    with pytest.raises(ValueError, match=f"num_envs = {num_envs} must be a whole number"):
        make(num_envs)


@for_every_game
@pytest.mark.parametrize("kind", [float, bool])
def test_actions_that_are_no_whole_numbers_are_refused(env_id: str, kind: type) -> None:
    single, vector = gym.make(env_id).unwrapped, gym.make_vec(env_id, N)
    for env in (single, vector):
        env.reset(seed=0)
        with pytest.raises(ValueError, match=r"^actions? "):
            env.step(np.zeros(env.action_space.shape, kind))
    pythons_own = np.zeros(single.action_space.shape or (), kind).tolist()
    with pytest.raises(ValueError, match=r"^action "):
        single.step(pythons_own)
    nothing = np.full(vector.action_space.shape or (), np.nan)
    with pytest.raises(ValueError, match="actions are of type float64, not whole numbers: "):
        vector.step(nothing)


@for_every_game
def test_environments_can_be_begun_one_after_another(env_id: str) -> None:
    env = gym.make_vec(env_id, N)
    actions = env.action_space.sample()
    for first in (True, False):
        env.reset(seed=0, options={"reset_mask": np.array([first] + [not first] * (N - 1))})
        if first:
            with pytest.raises(gym.error.ResetNeeded, match=f"of {N - 1} of {N} environments"):
                env.step(actions)
    env.step(actions)


def test_rates_may_add_up_to_one() -> None:
    gym.make("ExpireSpan/Instruction-v0", walk_rate=0.33, move_rate=0.56, ask_rate=0.11)
    with pytest.raises(ValueError, match="no more than 1 together"):
        gym.make("ExpireSpan/Instruction-v0", walk_rate=0.34, move_rate=0.56, ask_rate=0.11)

"""Portal: where doors lead, what is marked and counted, how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

from expire_span.agents import MemoryPPO, make_vec_env
from expire_span.envs.portal import (
    COLOURS,
    LOWER,
    UPPER,
    PortalEnv,
    draw_episode,
    max_passages,
    return_by_guessing,
    step_limit,
)
from expire_span.envs.portal_vector import PortalVectorEnv
from expire_span.training import evaluate_retention

EAST = 0


def go_through(env: PortalEnv, door: int) -> tuple[Any, ...]:
    """Try a door of the agent's room and go where it leads."""
    try_door(env, door)
    return env.step(0)


def try_door(env: PortalEnv, door: int) -> tuple[Any, ...]:
    """Put the agent before a door of its room and move it against the door."""
    env.agent_pos = (env.room_size, env.middle + (-1 if door == UPPER else 1))
    env.agent_dir = EAST
    return env.step(2)


def test_right_doors_lead_on_and_wrong_ones_back_to_the_tiled_room() -> None:
    env = PortalEnv(n_rooms=3)
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        for room, wrong in ((1, False), (2, False), (0, True), (1, False), (2, False)):
            right_door = env.episode.right_door[env.room]
            obs, reward, over, *_ = go_through(env, 1 - right_door if wrong else right_door)
            assert env.room == room and reward == 0 and not over
            tiled = (obs.reshape(-1, 3)[:, 0] == OBJECT_TO_IDX["floor"]).any()
            assert tiled == (room == 0)
        _, reward, terminated, truncated, info = go_through(env, env.episode.right_door[2])
        assert reward == 1 and terminated and not truncated and info["is_success"] is True
        # rooms 0 and 1 were known at their second passage; the wrong door of room 2 was a first try
        assert info["tallies"] == {
            "repeated_mistakes": 0,
            "repeated_mistakes_of": 3,
            "rooms_reached": 3,
        }


def test_only_known_outcomes_are_counted_as_repeated() -> None:
    env = PortalEnv(n_rooms=2)
    env.reset(seed=0)
    wrong = 1 - env.episode.right_door[0]
    go_through(env, wrong)
    assert env.tallies == {"repeated_mistakes": 0, "repeated_mistakes_of": 0, "rooms_reached": 0}
    go_through(env, wrong)
    assert env.tallies == {"repeated_mistakes": 1, "repeated_mistakes_of": 1, "rooms_reached": 0}
    go_through(env, 1 - wrong)
    assert env.tallies == {"repeated_mistakes": 1, "repeated_mistakes_of": 2, "rooms_reached": 1}


def test_door_tried_shows_what_it_is_for_one_step() -> None:
    env = PortalEnv(n_rooms=2, view_size=3)
    env.reset(seed=0)
    right_door = env.episode.right_door[0]
    for door, state in ((1 - right_door, "locked"), (right_door, "open")):
        obs, *_, info = try_door(env, door)
        ahead = obs.reshape(3, 3, 3)[1, 1]
        colour = COLOR_TO_IDX[COLOURS[env.episode.colours[0, door]]]
        assert ahead.tolist() == [OBJECT_TO_IDX["door"], colour, STATE_TO_IDX[state]]
        assert info["memory"] == {"cue": 0, "decision": -1}
        obs, *_, info = env.step(2)
        doors = obs.reshape(-1, 3)[obs.reshape(-1, 3)[:, 0] == OBJECT_TO_IDX["door"]]
        assert (doors[:, 2] == STATE_TO_IDX["closed"]).all() and info["memory"]["cue"] == -1


def test_known_doors_in_view_are_the_decision() -> None:
    env = PortalEnv(n_rooms=2)
    _, info = env.reset(seed=0)
    assert info["memory"] == {"cue": -1, "decision": -1}
    go_through(env, 1 - env.episode.right_door[0])
    env.agent_pos, env.agent_dir = (3, env.middle), 1
    *_, info = env.step(1)  # to the west, its back to the doors
    assert info["memory"] == {"cue": -1, "decision": -1}
    env.agent_dir = 1
    *_, info = env.step(0)
    assert env.agent_dir == EAST and info["memory"] == {"cue": -1, "decision": 0}


@pytest.mark.parametrize("n_rooms", [1, 3, 15])
def test_episode_ends_as_a_loss_when_passages_or_steps_run_out(n_rooms: int) -> None:
    env = PortalEnv(n_rooms=n_rooms)
    env.reset(seed=0)
    for passage in range(1, max_passages(n_rooms) + 1):
        _, reward, terminated, truncated, info = go_through(env, 1 - env.episode.right_door[0])
        assert reward == 0 and not truncated
        assert terminated == (passage == max_passages(n_rooms))
    assert info["is_success"] is False
    env.reset(seed=1)
    for step in range(1, step_limit(n_rooms, 3) + 1):
        _, _, terminated, truncated, _ = env.step(0)
        assert not truncated and terminated == (step == step_limit(n_rooms, 3))


def test_rooms_have_different_pairs_and_both_doors_are_as_often_right() -> None:
    rng = np.random.default_rng(0)
    episodes = [draw_episode(rng, 10, 3) for _ in range(500)]
    for episode in episodes:
        assert len({frozenset(pair) for pair in episode.colours.tolist()}) == 10
        assert (episode.colours[:, UPPER] != episode.colours[:, LOWER]).all()
    right = np.stack([episode.right_door for episode in episodes])
    assert abs(right.mean() - 0.5) < 5 * 0.5 / np.sqrt(right.size)


@pytest.mark.parametrize("n_rooms", [1, 3, 5])
def test_return_by_guessing_is_that_of_guesses(n_rooms: int) -> None:
    rng, n_episodes = np.random.default_rng(0), 4000
    right = rng.random((n_episodes, max_passages(n_rooms))) < 0.5
    windows = np.lib.stride_tricks.sliding_window_view(right, n_rooms, axis=1)
    runs = windows.min(axis=2).max(axis=1)
    assert abs(runs.mean() - return_by_guessing(n_rooms)) < 5 * 0.5 / np.sqrt(n_episodes)


@pytest.mark.parametrize("make", [PortalEnv, PortalVectorEnv])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_rooms": 0}, "n_rooms = 0 is not between 1 and 15"),
        ({"n_rooms": 16}, "n_rooms = 16 is not between 1 and 15"),
        ({"room_size": 4}, "room_size = 4 is not an odd number"),
        ({"view_size": 1}, "view_size = 1 is not an odd number"),
        ({"tile_size": 0}, "tile_size = 0 is below 1 pixel per cell"),
    ],
)
def test_invalid_arguments_are_named(
    make: Callable[..., Any], kwargs: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_actions_that_do_not_exist_are_named() -> None:
    env = PortalEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action = 3 is none of 0"):
        env.step(3)


def test_evaluation_gives_the_share_of_repeated_mistakes() -> None:
    vec_env = make_vec_env("expire_span.envs:ExpireSpan/Portal-3-v0", 64, seed=0)
    model = MemoryPPO("MlpPolicy", vec_env, memory="none", n_steps=8, seed=0)
    evaluation = evaluate_retention(model, vec_env, 200, deterministic=False)
    assert evaluation.tallies.keys() == {"repeated_mistakes", "rooms_reached"}
    # an untrained agent takes either door as often
    assert 0.4 < evaluation.tallies["repeated_mistakes"] < 0.6
    assert 0 < evaluation.tallies["rooms_reached"] <= 3


def test_rooms_reached_are_the_most() -> None:
    env = PortalEnv(n_rooms=3)
    env.reset(seed=0)
    for right in (True, False):
        door = int(env.episode.right_door[env.room])
        env._try(door if right else 1 - door)
        env._pass()
    assert env.room == 0
    assert env.tallies["rooms_reached"] == 1

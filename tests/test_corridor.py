"""The corridor: what is seen, what pays, how it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from minigrid.core.constants import OBJECT_TO_IDX

from expire_span.envs.corridor import (
    COLOURS,
    HEIGHT,
    WINDOW,
    CorridorEnv,
    draw_episode,
    step_limit,
)
from expire_span.envs.corridor_vector import CorridorVectorEnv
from expire_span.envs.oracles import CorridorOracle
from expire_span.envs.portal import PortalEnv


def test_cue_is_in_view_at_reset_and_out_of_view_after_one_step() -> None:
    env = CorridorVectorEnv(64, min_length=4)
    obs, infos = env.reset(seed=0)
    cells = obs.reshape(64, -1, 3)
    assert ((cells[..., 0] == OBJECT_TO_IDX["ball"]).sum(1) == 1).all()
    assert (infos["memory"]["cue"] == 0).all()
    obs, *_, infos = env.step(np.full(64, 2))
    assert not (obs.reshape(64, -1, 3)[..., 0] == OBJECT_TO_IDX["ball"]).any()
    assert (infos["memory"]["cue"] == -1).all()


@pytest.mark.parametrize("view_size", [3, 5, 7])
def test_marks_follow_what_is_seen_and_where_the_agent_stands(view_size: int) -> None:
    env = CorridorEnv(min_length=3, max_length=9, view_size=view_size)
    rng, decisions, cues = np.random.default_rng(0), 0, 0
    for seed in range(20):
        obs, info = env.reset(seed=seed)
        over = False
        while not over:
            sees_ball = (obs.reshape(-1, 3)[:, 0] == OBJECT_TO_IDX["ball"]).any()
            at_junction = tuple(env.agent_pos) == (env.episode.length, 2)
            assert info["memory"] == {
                "cue": 0 if sees_ball else -1,
                "decision": 0 if at_junction else -1,
            }
            cues += sees_ball
            decisions += at_junction
            obs, _, terminated, truncated, info = env.step(int(rng.integers(3)))
            over = terminated or truncated
            assert ("is_success" in info) == over
    assert cues and decisions


def test_only_the_cues_colour_pays() -> None:
    env = CorridorEnv(min_length=3, max_length=6)
    for seed in range(40):
        env.reset(seed=seed)
        length, cue, upper_goal = env.episode
        for turn, colour in ((0, upper_goal), (1, 1 - upper_goal)):
            env.reset(seed=seed)
            for action in [2] * (length - 1) + [turn]:
                _, reward, terminated, _, _ = env.step(action)
                assert reward == 0 and not terminated
            _, reward, terminated, truncated, info = env.step(2)
            assert terminated and not truncated
            assert reward == float(colour == cue) and info["is_success"] is (colour == cue)


def test_turning_away_from_the_goals_does_nothing() -> None:
    env = CorridorEnv()
    first, _ = env.reset(seed=0)
    for action in (0, 1):  # towards the ball, towards the wall
        obs, *_ = env.step(action)
        assert tuple(env.agent_pos) == (1, 2) and env.carrying is None
        np.testing.assert_array_equal(obs, first)
    with pytest.raises(ValueError, match="action = 3 is none of 0"):
        env.step(3)


def test_lengths_cues_and_sides_are_drawn_evenly() -> None:
    rng, draws = np.random.default_rng(0), 8000
    episodes = [draw_episode(rng, 3, 10, shuffle_goals=True) for _ in range(draws)]
    for share, counts in (
        (1 / 8, Counter(episode.length for episode in episodes)),
        (1 / 4, Counter((episode.cue, episode.upper_goal) for episode in episodes)),
    ):
        assert len(counts) == round(1 / share)
        bound = 5 * np.sqrt(draws * share * (1 - share))
        assert all(abs(count - draws * share) < bound for count in counts.values())
    assert {episode.length for episode in episodes} == set(range(3, 11))
    assert len(COLOURS) == 2
    assert {draw_episode(rng, 3, 10, shuffle_goals=False).upper_goal for _ in range(100)} == {0}


@pytest.mark.parametrize("length", [3, 20])
def test_running_out_of_steps_is_a_loss(length: int) -> None:
    assert step_limit(length) == 4 * length + 20
    env = CorridorEnv(min_length=length, max_length=length)
    env.reset(seed=0)
    for step in range(1, step_limit(length) + 1):
        _, reward, terminated, truncated, info = env.step(0)
        assert reward == 0 and not truncated
        over = step == step_limit(length)
        assert terminated == over and info.get("is_success") is (False if over else None)


@pytest.mark.parametrize("make", [CorridorEnv, CorridorVectorEnv])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"min_length": 2}, "min_length = 2 is below 3"),
        ({"min_length": 9, "max_length": 8}, "max_length = 8 is below min_length = 9"),
        ({"view_size": 4}, "view_size = 4 is not an odd number"),
        ({"view_size": 1}, "view_size = 1 is not an odd number"),
        ({"tile_size": 0}, "tile_size = 0 is below 1 pixel per cell"),
    ],
)
def test_invalid_arguments_are_named(
    make: Callable[..., Any], kwargs: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_vector_form_names_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="num_envs = 0 is below 1"):
        CorridorVectorEnv(0)
    with pytest.raises(ValueError, match="render_mode = 'human'"):
        CorridorVectorEnv(2, render_mode="human")
    env = CorridorVectorEnv(2)
    with pytest.raises(gym.error.ResetNeeded, match="before the first reset"):
        env.step(np.zeros(2, np.int64))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(3,\), not \(2,\)"):
        env.step(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="hold other values than 0"):
        env.step(np.array([0, 3]))
    with pytest.raises(ValueError, match="is not a bool array of shape"):
        env.reset(options={"reset_mask": np.array([1, 0])})


def test_oracle_must_start_where_episodes_start() -> None:
    obs, _ = CorridorVectorEnv(2).reset(seed=0)
    with pytest.raises(ValueError, match="starts_B marks 1 of 2"):
        CorridorOracle().act(obs, np.array([True, False]))


def test_a_window_shows_the_cells_about_the_agent() -> None:
    env = CorridorEnv(max_length=200)
    env.reset(seed=0)
    wide = env.get_frame(tile_size=8)
    env.render_mode = "human"
    square = env.get_frame(tile_size=8)
    n, x = WINDOW * 8, int(env.agent_pos[0]) * 8
    assert square.shape == (n, n, 3) and wide.shape == (HEIGHT * 8, 202 * 8, 3)
    above, middle = (WINDOW - HEIGHT) // 2 * 8, WINDOW // 2 * 8
    shown = square[above : above + HEIGHT * 8, middle : middle + 8]
    np.testing.assert_array_equal(shown, wide[:, x : x + 8])


@pytest.mark.parametrize("make", [CorridorEnv, PortalEnv])
def test_a_render_mode_there_is_not_is_named(make: Any) -> None:
    with pytest.raises(ValueError, match="'nope' is neither None nor 'human' nor 'rgb_array'"):
        make(render_mode="nope")

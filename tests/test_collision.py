"""What is particular to Collision: its motion, its questions, their answers."""

from __future__ import annotations

import numpy as np
import pytest

from expire_span.envs.collision import (
    COLOURS,
    NO_COLOUR,
    PAIRS,
    REPEAT_SHARE,
    SIDE,
    CollisionEnv,
)
from expire_span.envs.collision_vector import CollisionVectorEnv


def test_particles_step_by_one_cell_bounce_and_are_scattered_where_they_touch() -> None:
    env = CollisionEnv(n_questions=2000)
    obs, _ = env.reset(seed=0)
    collisions = 0
    over = False
    while not over:
        before = obs.astype(int)
        obs, _, over, _, _ = env.step(np.int64(0))
        now = obs.astype(int)
        assert max(now[[0, 1, 3, 4]]) < SIDE
        apart = max(abs(now[0] - now[3]), abs(now[1] - now[4]))
        assert now[6] == (apart <= 1)
        if before[6]:
            collisions += 1
        else:
            moved = np.abs(now - before)[[0, 1, 3, 4]]
            assert moved.max() <= 1 and moved.any()
    assert collisions > 20


def test_questions_are_about_collisions_before_and_answers_are_where_they_were() -> None:
    env = CollisionEnv(n_questions=3000)
    obs, info = env.reset(seed=1)
    quarter: dict[tuple[int, int], int] = {}
    last, repeats, asked_steps = (-1, -1), 0, 0
    rng, over = np.random.default_rng(0), False
    while not over:
        x, y, colour, _, _, other, touching, *asked = obs.tolist()
        pair = (min(colour, other), max(colour, other))
        answer = int(rng.integers(4))
        expected = 0.0
        if len(quarter) < 2:
            assert asked == [NO_COLOUR, NO_COLOUR] and info["memory"]["decision"] == -1
        else:
            key = (min(asked), max(asked))
            expected = float(quarter[key] == answer)
            asked_steps += 1
            repeats += key == last
        if touching:
            quarter[pair], last = 2 * (2 * y >= SIDE) + (2 * x >= SIDE), pair
        obs, reward, over, _, info = env.step(np.int64(answer))
        assert reward == expected
    assert abs(repeats / asked_steps - REPEAT_SHARE) < 0.03  # 3 standard deviations
    assert info["tallies"]["right_answers_of"] == 3000 == asked_steps


def test_where_the_particles_are_does_not_tell_where_they_were() -> None:
    env = CollisionVectorEnv(64, n_questions=400)
    obs, _ = env.reset(seed=0)
    hits, asked = 0.0, 0
    for _ in range(400):
        here = 2 * (2 * obs[:, 1] >= SIDE) + (2 * obs[:, 0] >= SIDE)
        asked += int((obs[:, 7] != NO_COLOUR).sum())
        obs, rewards, *_ = env.step(here.astype(np.int64))
        hits += float(rewards.sum())
    # answers of one episode are alike, so allow more than independent ones would need
    assert abs(hits / asked - 0.25) < 0.04


def test_every_pair_of_colours_is_met() -> None:
    env = CollisionVectorEnv(64, n_questions=10_000)
    env.reset(seed=0)
    for _ in range(3000):
        env.step(np.zeros(64, np.int64))
    assert len(PAIRS) == 15 and len(COLOURS) == 5
    assert (env._collision_BP >= 0).any(0).all()


def test_invalid_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="n_questions = 0 is below 1"):
        CollisionEnv(n_questions=0)
    with pytest.raises(ValueError, match=r"tile_size = 2\.5 must be a whole number"):
        CollisionEnv(tile_size=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="render_mode = 'human' is neither None nor 'rgb_array'"):
        CollisionEnv(render_mode="human")
    env = CollisionEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="is none of 0"):
        env.step(np.int64(4))


@pytest.mark.parametrize("wrong", [1, 2])
def test_an_episode_succeeds_from_19_right_answers_of_20_on(wrong: int) -> None:
    env = CollisionEnv(n_questions=20)
    env.reset(seed=0)
    over = False
    while not over:
        errs = env.asked >= 0 and env.answers >= 20 - wrong
        *_, over, _, info = env.step(np.int64((env.answer + errs) % 4))
    assert info["tallies"] == {"right_answers": 20 - wrong, "right_answers_of": 20}
    assert info["is_success"] is (wrong == 1)


def test_two_questions_of_five_are_about_the_last_pair() -> None:
    assert REPEAT_SHARE == 0.4

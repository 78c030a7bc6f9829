"""Evaluation: fresh episodes without bias, and figures that agree with a count by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from expire_span.agents import MemoryPPO, NonFiniteError, make_vec_env
from expire_span.agents.episode_returns import episode_success
from expire_span.agents.metrics import Held, record_lifetimes, record_memory
from expire_span.agents.retention import RetentionTracker
from expire_span.memory import MEMORIES, LiveMemories
from expire_span.training import Evaluation, evaluate_retention, plots

CORRIDOR = "expire_span.envs:ExpireSpan/Corridor-v0"
LENGTHS = {"min_length": 4, "max_length": 9}


class FixedLengths(gym.Env[Any, Any]):
    """Episodes of 2 and 12 steps in turn; the return is the length. The first step is a cue, the
    last one needs it."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, reward: float = 1.0, seen: float = 0.0, marked: bool = True) -> None:
        self.limit = 12
        self.rewarded, self.seen, self.marked = reward, seen, marked

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.limit, self.count = 14 - self.limit, 0
        return np.zeros(1, np.float32), self.marks(0, -1)

    def step(self, action: Any) -> Any:
        self.count += 1
        decides = self.count == self.limit - 1
        obs = np.full(1, self.seen, np.float32)
        ends = self.count == self.limit
        return obs, self.rewarded, ends, False, self.marks(-1, 0 if decides else -1)

    def marks(self, cue: int, decision: int) -> dict[str, Any]:
        return {"memory": {"cue": cue, "decision": decision}} if self.marked else {}


def evaluate(memory: str, n_episodes: int, n_envs: int, **options: Any) -> Evaluation:
    vec_env = DummyVecEnv([FixedLengths for _ in range(n_envs)])
    model = MemoryPPO("MlpPolicy", vec_env, memory=memory, memory_kwargs=options, n_steps=8)
    return evaluate_retention(model, vec_env, n_episodes)


@pytest.mark.parametrize("n_episodes,n_envs", [(1, 3), (6, 3), (7, 3), (40, 10)])
def test_every_environment_plays_its_share(n_episodes: int, n_envs: int) -> None:
    """Short episodes end first, but are counted no more often than long ones."""
    evaluation = evaluate("none", n_episodes, n_envs)
    assert evaluation.episodes == n_episodes and evaluation.success_rate is None
    shares = [len(share) for share in np.array_split(np.arange(n_episodes), n_envs)]
    lengths = [length for share in shares for length in ([2, 12] * share)[:share]]
    assert evaluation.mean_length == evaluation.mean_reward == np.mean(lengths)
    assert evaluation.std_reward == pytest.approx(np.std(lengths))
    assert evaluation.steps == sum(lengths)


def test_a_window_is_counted_right() -> None:
    """With a window of 5 steps the cue of long episodes is gone at the decision."""
    evaluation = evaluate("transformer-xl", 8, 2, window=5)
    live = [min(step, 5) for length in (2, 12) for step in range(length)]
    assert evaluation.live_memory_mean == pytest.approx([np.mean(live)] * 2)
    assert evaluation.live_memory_max == 5 and evaluation.cue_recall == 0.5
    cues = sum(1 <= step <= 5 for length in (2, 12) for step in range(length))
    assert evaluation.precision == pytest.approx(cues / sum(live))
    assert evaluation.spans is not None and set(evaluation.spans) == {"cue", "decision", "other"}
    assert len(evaluation.spans["cue"]) == 8 and (evaluation.spans["cue"] == 5).all()


def test_a_compressed_cue_is_a_cue_that_is_held() -> None:
    # a group of 4 steps is compressed when its last is 2 steps old
    evaluation = evaluate("compressive", 8, 2, window=2, compression=4, n_compressed=4)
    assert evaluation.cue_recall == 1
    steps = [step for length in (2, 12) for step in range(length)]
    live = [step - 3 * ((step - 1) // 4) if step else 0 for step in steps]
    assert evaluation.live_memory_mean == pytest.approx([np.mean(live)] * 2)
    assert evaluation.precision == pytest.approx(sum(step > 0 for step in steps) / sum(live))


def test_an_environment_is_taken_in_every_form_that_an_agent_takes() -> None:
    model = MemoryPPO("MlpPolicy", FixedLengths(), memory="none", n_steps=8)
    single = evaluate_retention(model, FixedLengths(), 4)
    assert (
        (single.episodes, single.mean_length) == (4, 7) == (4, evaluate("none", 4, 1).mean_length)
    )
    model = MemoryPPO("MlpPolicy", "CartPole-v1", n_envs=2, memory="none", n_steps=8)
    same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
    native = gym.make_vec("CartPole-v1", 3, "sync", vector_kwargs=same_step)
    for env in ("CartPole-v1", native, gym.make("CartPole-v1"), make_vec_env("CartPole-v1", 3)):
        evaluation = evaluate_retention(model, env, 5)
        assert evaluation.episodes == 5 and evaluation.mean_reward == evaluation.mean_length


def test_what_cannot_be_evaluated_is_named() -> None:
    model = MemoryPPO("MlpPolicy", FixedLengths(), memory="none", n_steps=8)
    for env in (None, FixedLengths, 7):
        with pytest.raises(TypeError, match=r"env = .* is no environment"):
            evaluate_retention(model, env, 1)  # type: ignore[arg-type]
    sb3s: Any = PPO("MlpPolicy", FixedLengths(), n_steps=8, batch_size=8)
    with pytest.raises(TypeError, match=r"model = .*PPO.* has no memory .*evaluate_policy"):
        evaluate_retention(sb3s, FixedLengths(), 1)


def test_environments_that_have_played_their_share_are_not_counted() -> None:
    """Of three episodes one is long; a fourth, long too, is played beside it and left out."""
    evaluation = evaluate("transformer-xl", 3, 2, window=5)
    assert evaluation.cue_recall == pytest.approx(2 / 3) and evaluation.steps == 16
    assert evaluation.spans is not None
    assert sum(map(len, evaluation.spans.values())) == 16


def test_the_recorded_episode_says_how_long_each_memory_was_live() -> None:
    episode = evaluate("transformer-xl", 8, 1, window=5).episode
    assert episode is not None
    assert episode.kind_T.tolist() == [0, 1]  # the first episode of the one environment
    assert episode.last_live_LT.tolist() == [[1, 1]] * 2
    vec_env = make_vec_env(CORRIDOR, 4, 0, LENGTHS)
    model = MemoryPPO("MlpPolicy", vec_env, memory="transformer-xl", memory_kwargs={"window": 2})
    episode = evaluate_retention(model, vec_env, 4, deterministic=False).episode
    assert episode is not None
    steps = len(episode.kind_T)
    expected = np.minimum(np.arange(steps) + 2, steps - 1)
    assert (episode.last_live_LT == expected).all()


def test_evictions_and_the_capacity_are_seen() -> None:
    evaluation = evaluate("expire-span", 4, 2, max_live=4)
    assert evaluation.live_memory_max == 3
    assert evaluation.evicted == 2 * 2 * (12 - 4)  # two long episodes, two layers


def test_figures_agree_with_those_of_training() -> None:
    vec_env = make_vec_env(CORRIDOR, 4, 0, LENGTHS)
    model = MemoryPPO("MlpPolicy", vec_env, learning_rate=0.0, n_steps=512, seed=0)
    model.learn(2048)
    logged = model.logger.name_to_value
    evaluation = evaluate_retention(model, vec_env, 200, deterministic=False)
    assert evaluation.live_memory_mean is not None
    assert np.mean(evaluation.live_memory_mean) == pytest.approx(
        logged["memory/live_mean"], rel=0.1
    )
    assert evaluation.cue_recall == logged["retention/cue_recall"] == 1.0
    assert evaluation.success_rate == pytest.approx(0.5, abs=0.15)


def test_cues_no_memory_reaches_any_more_are_not_kept_for_ever() -> None:
    tracker = RetentionTracker(1)
    live = LiveMemories(torch.arange(3.0).view(1, 1, 3))  # the step itself and two before
    for step in range(100):
        tracker.observe(np.array([step == 0]), np.array([7]), np.array([-1]), live)
    assert tracker.precision(live) == 1
    assert tracker.cue_steps == [{7: [97, 98, 99]}]
    tracker.observe(np.array([False]), np.array([-1]), np.array([7]), live)
    tracker.observe(np.array([False]), np.array([-1]), np.array([7]), live)
    tracker.observe(np.array([False]), np.array([-1]), np.array([7]), live)
    assert tracker.pop_cue_recall() == pytest.approx(2 / 3)


@pytest.mark.parametrize("memory", MEMORIES)
def test_every_memory_is_evaluated_and_drawn(memory: str) -> None:
    evaluation = evaluate(memory, 4, 2)
    assert evaluation.mean_reward == 7
    assert (evaluation.live_memory_mean is None) == (memory in ("gru", "lstm"))
    assert "episode" not in evaluation.figures()
    figure = plots.retention(evaluation, memory)
    figure.canvas.draw()
    assert figure.get_axes()


def test_learning_curves_show_what_there_is() -> None:
    row = {"time/total_timesteps": 10.0, "rollout/ep_rew_mean": 1.0}
    assert len(plots.learning_curve([row], "lstm").get_axes()) == 1
    row |= {"memory/live_mean_layer0": 3.0, "rollout/success_rate": 0.5}
    upper, lower = plots.learning_curve([row], "expire-span").get_axes()
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("success rate", "live memories")
    staged = [row | {"curriculum/stage": stage} for stage in (0, 0, 1)]
    figure = plots.learning_curve(staged, "expire-span")
    figure.canvas.draw()
    upper, _ = figure.get_axes()
    assert {text.get_text() for text in upper.texts} == {"stage", "1"}
    for text in upper.texts:  # over no curve, and on the page
        assert upper.get_window_extent().y1 <= text.get_window_extent().y0
        assert text.get_window_extent().y1 <= figure.get_window_extent().y1
    plots.learning_curve([], "nothing yet").canvas.draw()


@pytest.mark.parametrize("memory", ["expire-span", "compressive"])
def test_without_marks_nothing_is_said_of_their_precision(memory: str) -> None:
    vec_env = DummyVecEnv([lambda: FixedLengths(marked=False)] * 2)
    figures = evaluate_retention(MemoryPPO("MlpPolicy", vec_env, memory=memory), vec_env, 4)
    assert figures.live_memory_mean is not None
    assert figures.precision is None and figures.cue_recall is None


@pytest.mark.parametrize("deterministic", [True, False])
def test_an_evaluation_says_how_actions_were_chosen(deterministic: bool) -> None:
    vec_env = DummyVecEnv([FixedLengths])
    evaluation = evaluate_retention(MemoryPPO("MlpPolicy", vec_env), vec_env, 1, deterministic)
    assert evaluation.figures()["deterministic"] is deterministic


@pytest.mark.parametrize(
    ("spoiled", "what"),
    [
        ({"reward": np.nan}, "reward = nan of environment 0 at step 2"),
        ({"seen": np.inf}, r"observation entry \(0,\) = inf of environment 0 at step 2"),
    ],
)
def test_values_not_finite_stop_an_evaluation_by_name(spoiled: Any, what: str) -> None:
    vec_env = DummyVecEnv([lambda: FixedLengths(**spoiled)] * 2)
    model = MemoryPPO("MlpPolicy", vec_env)
    with pytest.raises(NonFiniteError, match=f"evaluation failed: {what} is not finite"):
        evaluate_retention(model, vec_env, 1)


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="n_episodes = 0"):
        evaluate("none", 0, 1)


@pytest.mark.parametrize(("freq", "draws"), [(-1, 3), (4, 6)])
def test_noise_is_drawn_as_in_training_where_actions_are(
    freq: int, draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vec_env = make_vec_env("Pendulum-v1", 2, wrapper_class=lambda env: TimeLimit(env, 24))
    model = MemoryPPO("MlpPolicy", vec_env, use_sde=True, sde_sample_freq=freq, n_steps=8)
    drawn: list[int] = []
    reset_noise = model.policy.reset_noise

    def noted(n_envs: int) -> None:
        drawn.append(n_envs)
        reset_noise(n_envs)

    monkeypatch.setattr(model.policy, "reset_noise", noted)
    evaluate_retention(model, vec_env, 2)
    assert not drawn
    evaluate_retention(model, vec_env, 2, deterministic=False)
    assert drawn == [2] * draws


def recorded(record: Callable[..., None], *arguments: Any) -> dict[str, Any]:
    """What a function writes to a logger."""
    logger = Logger(None, [])
    record(logger, *arguments)
    return dict(logger.name_to_value)


def test_lifetimes_by_hand() -> None:
    shows_cue, spans = torch.tensor([[True, False]]), torch.tensor([[[3.0, 5.0], [2.0, 1.0]]])
    assert recorded(record_lifetimes, [Held(shows_cue, spans, None, None)], 4.0) == {
        "retention/cue_lifetime": 9.0,
        "retention/other_lifetime": 6.0,
    }


def test_live_memories_and_spans_by_hand() -> None:
    live, spans = torch.tensor([[[1, 4], [3, 2]]]), torch.arange(101.0).view(1, 101, 1)
    none = torch.zeros(1, 101, dtype=torch.bool)
    held = [Held(none[:, :2], None, live, None), Held(none, spans, None, None)]
    assert recorded(record_memory, held) == pytest.approx(
        {
            "memory/live_mean": 2.5,
            "memory/live_max": 4,
            "memory/live_mean_layer0": 2,
            "memory/live_mean_layer1": 3,
            "memory/span_mean_layer0": 50,
            "memory/span_p95_layer0": 95,
        }
    )


def seen(tracker: RetentionTracker, start: bool, cue: int, decision: int) -> LiveMemories:
    """Show the tracker a step at which memories of ages 0, 1 and 2 are live."""
    live = LiveMemories(torch.arange(3.0).view(1, 1, 3))
    tracker.observe(np.array([start]), np.array([cue]), np.array([decision]), live)
    return live


def test_the_present_step_is_no_memory_yet() -> None:
    tracker = RetentionTracker(1)
    seen(tracker, True, 0, -1)
    seen(tracker, False, -1, -1)
    assert tracker.precision(seen(tracker, False, -1, -1)) == 0.5


def test_a_cue_of_the_episode_before_is_none_of_this_one() -> None:
    tracker = RetentionTracker(1)
    seen(tracker, True, 0, -1)
    seen(tracker, True, -1, 0)
    assert tracker.pop_cue_recall() is None


class Lives(gym.Wrapper[Any, Any, Any, Any]):
    """A game of 12 steps in two lives, as by SB3's EpisodicLifeEnv."""

    over, steps = True, 0

    def reset(self, **arguments: Any) -> Any:
        self.steps = 0 if self.over else self.steps
        return self.env.reset(**arguments) if self.over else (np.zeros(1, np.float32), {})

    def step(self, action: Any) -> Any:
        obs, reward, self.over, cut, info = self.env.step(action)
        self.steps += 1
        return obs, reward, self.over or self.steps == 6, cut, info


def test_evictions_of_the_lives_before_count_too() -> None:
    vec_env = DummyVecEnv([lambda: Lives(Monitor(FixedLengths()))])
    model = MemoryPPO("MlpPolicy", vec_env, memory_kwargs={"max_live": 3}, n_steps=8)
    game: Any = vec_env.envs[0].unwrapped
    game.limit = 2  # of the episode before, so that this one has 12
    evaluation = evaluate_retention(model, vec_env, 1)
    n_layers, lives = 2, 2
    assert (evaluation.steps, evaluation.evicted) == (12, n_layers * lives * (6 - 3))


@pytest.mark.parametrize("said", ["yes", np.zeros(2), [True, False]])
def test_success_that_is_neither_true_nor_false_is_named(said: Any) -> None:
    with pytest.raises(ValueError, match="is neither true nor false"):
        episode_success({"is_success": said})


@pytest.mark.parametrize(
    ("said", "success"), [(None, None), (1.0, True), (np.array([False]), False)]
)
def test_success_may_be_any_kind_of_yes_or_no(said: Any, success: bool | None) -> None:
    assert episode_success({"is_success": said}) is success

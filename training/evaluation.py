"""What a trained agent does in fresh episodes, and what its memory holds while it does it.

B environments, S memory slots, L layers, T steps of an episode, N observations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from expire_span.agents.base import MemoryOnPolicyAlgorithm
from expire_span.agents.checks import (
    NonFiniteError,
    check_finite_observations,
    check_finite_rewards,
)
from expire_span.agents.environments import Playable, playable_vec_env
from expire_span.agents.episode_returns import EpisodeReturns, episode_success, is_monitored
from expire_span.agents.retention import RetentionTracker, episode_tallies, tally_shares
from expire_span.agents.vec_env import read_marks
from expire_span.memory import Memory, State

KINDS = ("cue", "decision", "other")
"""Kinds of observation, by the marks in `info["memory"]`: the first that applies."""

CUE, DECISION, OTHER = range(3)

RECORDED_ENVS = 8
"""Environments whose first episode is recorded; the longest that succeeded is kept."""


class EpisodeRecord(NamedTuple):
    """The memories of one episode.

    Shapes: kind_T, index into `KINDS` of the observation at each step; last_live_LT, the last step
    at which the memory born at each step could be read, by layer (the step of its birth, if never
    again). `success` is None in environments that report none; `reward` is the return.
    """

    kind_T: NDArray[np.int64]
    last_live_LT: NDArray[np.int64]
    success: bool | None
    reward: float


@dataclass(frozen=True)
class Evaluation:
    """Figures over the episodes of an evaluation. None where there is nothing to measure: success
    where the environment reports none, cue recall without marks, live memories and spans where
    the memory holds no separate memories (lstm, gru)."""

    deterministic: bool
    """Whether the likeliest action was taken at every step; otherwise actions were drawn."""
    episodes: int
    success_rate: float | None
    mean_reward: float
    std_reward: float
    mean_length: float
    live_memory_mean: list[float] | None
    """Memories each step could read, the step itself left out, by layer."""
    live_memory_max: int | None
    tallies: dict[str, float]
    """What the environment counts itself, `info["tallies"]` at an episode's end: see
    `tally_shares`."""
    cue_recall: float | None
    """Share of decisions at which the cue they need was still live."""
    precision: float | None
    """Share of live memories that are cues."""
    evicted: int | None
    """Memories dropped alive because the capacity was full."""
    steps: int
    seconds: float
    spans: dict[str, NDArray[np.float32]] | None
    """Predicted spans in steps at birth, (N, L), by kind of observation."""
    episode: EpisodeRecord | None
    """One episode in detail."""

    def figures(self) -> dict[str, Any]:
        """The numbers, for evaluation.json: spans as quantiles by kind and layer, no record."""
        hidden = ("spans", "episode", "steps", "seconds")
        figures = {name: value for name, value in vars(self).items() if name not in hidden}
        figures["evaluation_steps"] = self.steps
        figures["evaluation_seconds"] = round(self.seconds, 2)
        figures["spans"] = self.spans and {
            kind: [_quantiles(span_N) for span_N in span_NL.T]
            for kind, span_NL in self.spans.items()
        }
        return figures


def _quantiles(span_N: NDArray[np.float32]) -> dict[str, float]:
    low, median, high = np.quantile(span_N, (0.05, 0.5, 0.95)).tolist()
    return {"observations": len(span_N), "p05": low, "median": median, "p95": high}


def evaluate_retention(
    model: MemoryOnPolicyAlgorithm,
    vec_env: Playable,
    n_episodes: int,
    deterministic: bool = True,
    on_step: Callable[[int], None] = lambda episodes: None,
) -> Evaluation:
    """Play exactly `n_episodes` episodes from their beginning and measure what was remembered.

    Every environment plays a share of the episodes fixed beforehand, as in SB3's
    `evaluate_policy`: taking the first ones to end would favour short episodes. Where a Monitor
    counts whole games, lives are no episodes, as there. Environments that
    have played theirs are stepped on but not counted. `on_step` is called after every step with
    the number of episodes that ended in it.

    Of an id as many environments are made as the agent has.

    Raises ValueError for `n_episodes` below 1, TypeError for a model without memory, NonFiniteError
    for an observation or a reward that is NaN or infinite.
    """
    if n_episodes < 1:
        raise ValueError(f"n_episodes = {n_episodes} is below 1; use 1 or more")
    if not isinstance(model, MemoryOnPolicyAlgorithm):
        raise TypeError(
            f"model = {model!r} has no memory to look into; give a MemoryPPO or MemoryA2C, or "
            "evaluate it with stable_baselines3.common.evaluation.evaluate_policy"
        )
    vec_env = playable_vec_env(vec_env, min(n_episodes, model.n_envs))
    began = time.monotonic()
    n_envs = vec_env.num_envs
    episodes = _Episodes((n_episodes + np.arange(n_envs)) // n_envs, is_monitored(vec_env))
    retention = _Retention(model.policy.memory, n_envs)
    obs: Any = vec_env.reset()
    _check_finite(obs, np.zeros(n_envs), n_steps=0)
    n_steps = 0
    marks = read_marks(vec_env)
    starts_B = np.ones(n_envs, np.bool_)
    state: Any = None
    while (active_B := episodes.active_B()).any():
        if not deterministic:
            model.draw_noise(n_envs, n_steps // n_envs)
        actions, state = model.predict(obs, state, starts_B, deterministic)
        retention.observe(starts_B, active_B, *marks, state)
        obs, rewards_B, starts_B, infos = vec_env.step(actions)
        n_steps += n_envs
        _check_finite(obs, rewards_B, n_steps)
        ended_B = episodes.observe(active_B, rewards_B, starts_B, infos)
        retention.end(active_B & starts_B, ended_B, state, infos, episodes)
        marks = read_marks(vec_env, infos, starts_B)
        on_step(int(ended_B.sum()))
    return Evaluation(
        deterministic=deterministic,
        **episodes.figures(),
        **retention.figures(),
        seconds=time.monotonic() - began,
    )


def _check_finite(obs: Any, rewards_B: NDArray[Any], n_steps: int) -> None:
    """Raise NonFiniteError unless all that the environments gave is finite."""
    try:
        check_finite_rewards(rewards_B, n_steps)
        check_finite_observations(obs, n_steps)
    except NonFiniteError as error:
        raise NonFiniteError(f"evaluation failed: {error}") from None


class _Episodes:
    """Returns, lengths and successes, each environment's up to its share of the episodes."""

    def __init__(self, quota_B: NDArray[np.int64], monitored: bool) -> None:
        self.left_B = quota_B
        self.sums = EpisodeReturns(len(quota_B), monitored)
        self.length_B = np.zeros(len(quota_B), np.int64)
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.successes: list[bool] = []
        self.tallies: list[dict[str, int]] = []
        self.steps = 0

    def active_B(self) -> NDArray[np.bool_]:
        """Environments that still have episodes to play."""
        return self.left_B > 0

    def observe(
        self,
        active_B: NDArray[np.bool_],
        rewards_B: NDArray[Any],
        done_B: NDArray[np.bool_],
        infos: list[dict[str, Any]],
    ) -> NDArray[np.bool_]:
        """Take in a step. Returns the environments in which an episode that counts has ended."""
        self.steps += int(active_B.sum())
        self.length_B += 1
        returns = self.sums.add(rewards_B, done_B, infos)
        ended_B = active_B & np.isin(np.arange(len(done_B)), list(returns))
        for i in np.flatnonzero(ended_B).tolist():
            self.returns.append(float(returns[i]))
            self.lengths.append(int(infos[i].get("episode", {}).get("l", self.length_B[i])))
            if (success := episode_success(infos[i])) is not None:
                self.successes.append(success)
            self.tallies.append(episode_tallies(infos[i]))
        self.left_B = self.left_B - ended_B
        self.length_B[list(returns)] = 0
        return ended_B

    def figures(self) -> dict[str, Any]:
        """Fields of `Evaluation`."""
        return {
            "episodes": len(self.returns),
            "success_rate": float(np.mean(self.successes)) if self.successes else None,
            "mean_reward": float(np.mean(self.returns)),
            "std_reward": float(np.std(self.returns)),
            "mean_length": float(np.mean(self.lengths)),
            "tallies": tally_shares(self.tallies),
            "steps": self.steps,
        }


class _Retention:
    """What was live, and the span of every observation, in environments that count."""

    def __init__(self, memory: Memory, n_envs: int) -> None:
        self.memory = memory
        self.tracker = RetentionTracker(n_envs)
        self.kind_GB = np.zeros((1024, n_envs), np.int8)  # G: steps of the evaluation, and spare
        self.step = -1
        self.span_NL: list[NDArray[np.float32]] = []
        self.kind_N: list[NDArray[np.int64]] = []
        self.live_L: Any = 0
        self.live_max = self.counted_steps = self.live_cues = self.evicted = 0
        self.measures_live = False
        self.recorders = [_Recorder() for _ in range(min(n_envs, RECORDED_ENVS))]
        self.record: EpisodeRecord | None = None

    def observe(
        self,
        starts_B: NDArray[np.bool_],
        active_B: NDArray[np.bool_],
        cue_B: NDArray[np.int64],
        decision_B: NDArray[np.int64],
        state: State,
    ) -> None:
        """Take in a step: the marks of its observation, and the memory after it."""
        live = self.memory.live(state)
        self.tracker.observe(starts_B, cue_B, np.where(active_B, decision_B, -1), live)
        kind_B = np.where(cue_B >= 0, CUE, np.where(decision_B >= 0, DECISION, OTHER))
        self.step += 1
        if self.step == len(self.kind_GB):
            self.kind_GB = np.concatenate([self.kind_GB, np.zeros_like(self.kind_GB)])
        self.kind_GB[self.step] = kind_B
        if live is None:
            return
        age_BLSc = live.step_ages_BLSc().cpu().numpy()
        age_BLSc = np.where(active_B[:, None, None, None], age_BLSc, np.inf)
        self._count(active_B, age_BLSc)
        span_BL = self.memory.spans_at_birth(state)
        if span_BL is not None:
            self.span_NL.append(span_BL.cpu().numpy()[active_B])
            self.kind_N.append(kind_B[active_B])
        for i, recorder in enumerate(self.recorders):
            if active_B[i] and not recorder.complete:
                recorder.observe(int(kind_B[i]), age_BLSc[i])

    def _count(self, active_B: NDArray[np.bool_], age_BLSc: NDArray[Any]) -> None:
        past_BLSc = np.isfinite(age_BLSc) & (age_BLSc > 0)
        live_BL = past_BLSc.any(-1).sum(-1)
        self.measures_live = True
        self.live_L = self.live_L + live_BL.sum(0)
        self.live_max = max(self.live_max, int(live_BL.max()))
        self.counted_steps += int(active_B.sum())
        envs, *_ = past = np.nonzero(past_BLSc)
        births = self.step - age_BLSc[past].astype(np.int64)
        is_cue_BLSc = np.zeros_like(past_BLSc)
        is_cue_BLSc[past] = self.kind_GB[births, envs] == CUE
        self.live_cues += int(is_cue_BLSc.any(-1).sum())

    def end(
        self,
        done_B: NDArray[np.bool_],
        ended_B: NDArray[np.bool_],
        state: State,
        infos: list[dict[str, Any]],
        episodes: _Episodes,
    ) -> None:
        """Take in the episodes that ended, and what is done, which may be a life of one alone;
        `state` is still that of their last step."""
        ended = np.flatnonzero(ended_B)
        evicted_B = self.memory.evicted(state)
        if evicted_B is not None and done_B.any():
            self.evicted += int(evicted_B.cpu().numpy()[done_B].sum())
        returns = episodes.returns[len(episodes.returns) - len(ended) :]
        for i, reward in zip(ended, returns, strict=True):
            if i < len(self.recorders) and not self.recorders[i].complete:
                record = self.recorders[i].finish(episode_success(infos[i]), reward)
                if record is not None and _shows_more(record, self.record):
                    self.record = record

    def figures(self) -> dict[str, Any]:
        """Fields of `Evaluation`."""
        live_sum = int(np.sum(self.live_L))
        spans = None
        if self.span_NL:
            span_NL, kind_N = np.concatenate(self.span_NL), np.concatenate(self.kind_N)
            spans = {
                name: span_NL[kind_N == kind]
                for kind, name in enumerate(KINDS)
                if (kind_N == kind).any()
            }
        return {
            "live_memory_mean": (
                (self.live_L / self.counted_steps).tolist() if self.measures_live else None
            ),
            "live_memory_max": self.live_max if self.measures_live else None,
            "cue_recall": self.tracker.pop_cue_recall(),
            "precision": self.live_cues / live_sum if live_sum and self.tracker.marked else None,
            "evicted": self.evicted if self.measures_live else None,
            "spans": spans,
            "episode": self.record,
        }


class _Recorder:
    """Records the first episode of one environment."""

    def __init__(self) -> None:
        self.complete = False
        self.kinds: list[int] = []
        self.last_live: list[list[int]] = []  # by birth, then by layer

    def observe(self, kind: int, age_LSc: NDArray[Any]) -> None:
        """Take in a step of the episode."""
        now = len(self.kinds)
        self.kinds.append(kind)
        self.last_live.append([now] * len(age_LSc))
        for layer, slot, k in np.argwhere(np.isfinite(age_LSc)):
            self.last_live[now - int(age_LSc[layer, slot, k])][layer] = now

    def finish(self, success: bool | None, reward: float) -> EpisodeRecord | None:
        """The record; None if the memory held nothing to record."""
        self.complete = True
        if not self.kinds:
            return None
        return EpisodeRecord(np.array(self.kinds), np.array(self.last_live).T, success, reward)


def _shows_more(record: EpisodeRecord, than: EpisodeRecord | None) -> bool:
    if than is None:
        return True
    return (bool(record.success), len(record.kind_T)) > (bool(than.success), len(than.kind_T))

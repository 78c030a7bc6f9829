"""The metrics of agents by their logger keys. docs/metrics.md says what each means."""

from __future__ import annotations

from typing import NamedTuple

import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from expire_span.memory import Aux, LiveMemories

from .retention import RetentionTracker, tally_shares
from .rollout import RolloutSegment


class Held(NamedTuple):
    """What the memory held in a minibatch, without what the gradient needs, which is most of an
    `Aux`. (B, T) or as there."""

    shows_cue_BT: Tensor
    span_BTL: Tensor | None
    live_BTL: Tensor | None
    evicted_B: Tensor | None

    @classmethod
    def of(cls, segment: RolloutSegment, aux: Aux) -> Held:
        """That of a minibatch, by what `unroll` said of it."""
        span_BTL = None if aux.span_BTL is None else aux.span_BTL.detach()
        return cls(segment.shows_cue, span_BTL, aux.live_BTL, aux.evicted_B)


def record_rollout(
    logger: Logger,
    seen: list[Held],
    tracker: RetentionTracker,
    live: LiveMemories | None,
    ramp: float,
) -> None:
    """What the memory held during a rollout: `seen` is that of each minibatch, `live` what
    is left at its end."""
    record_memory(logger, seen)
    record_lifetimes(logger, seen, ramp)
    record_tallies(logger, tracker)
    if live is not None:
        record_retention(logger, tracker, live)


def record_learning(logger: Logger, policy: BasePolicy, rollout: RolloutBuffer) -> None:
    """What SB3 logs of every update: how well values explain returns, and how widely actions that
    are numbers are drawn."""
    variance = explained_variance(rollout.values.flatten(), rollout.returns.flatten())
    logger.record("train/explained_variance", variance)
    if (log_std := getattr(policy, "log_std", None)) is not None:
        logger.record("train/std", log_std.exp().mean().item())


def record_memory(logger: Logger, seen: list[Held]) -> None:
    """Live memories and spans over a rollout, from those of each minibatch of it."""
    lives = [held.live_BTL for held in seen if held.live_BTL is not None]
    spans = [held.span_BTL for held in seen if held.span_BTL is not None]
    evicted = [held.evicted_B for held in seen if held.evicted_B is not None]
    if lives:
        live_BTL = torch.cat(lives)
        logger.record("memory/live_mean", live_BTL.float().mean().item())
        logger.record("memory/live_max", live_BTL.max().item())
        for layer, mean in enumerate(live_BTL.float().mean((0, 1)).tolist()):
            logger.record(f"memory/live_mean_layer{layer}", mean)
    if evicted:
        logger.record("memory/evicted", int(torch.cat(evicted).sum()))
    if spans:
        span_BTL = torch.cat(spans)
        for layer, span_BT in enumerate(span_BTL.unbind(-1)):
            logger.record(f"memory/span_mean_layer{layer}", span_BT.mean().item())
            logger.record(f"memory/span_p95_layer{layer}", span_BT.quantile(0.95).item())


def record_lifetimes(logger: Logger, seen: list[Held], ramp: float) -> None:
    """Steps from birth to deletion, if the episode lasts, in the layer that keeps longest."""
    spans = [(held.shows_cue_BT, held.span_BTL) for held in seen if held.span_BTL is not None]
    if not spans:
        return
    is_cue = torch.cat([shows_cue for shows_cue, _ in spans])
    lifetime = torch.cat([span_BTL.amax(-1) for _, span_BTL in spans]) + ramp
    for key, which in (("cue_lifetime", is_cue), ("other_lifetime", ~is_cue)):
        if which.any():
            logger.record(f"retention/{key}", lifetime[which].mean().item())


def record_tallies(logger: Logger, tracker: RetentionTracker) -> None:
    """What the environment counts itself, as shares or means over the last episodes."""
    for name, share in tally_shares(tracker.episodes).items():
        logger.record(f"retention/{name}", share)


def record_retention(logger: Logger, tracker: RetentionTracker, live: LiveMemories) -> None:
    """Whether what was needed was kept, and how much else with it."""
    for key, value in (
        ("retention/cue_recall", tracker.pop_cue_recall()),
        ("retention/precision", tracker.precision(live)),
    ):
        if value is not None:
            logger.record(key, value)

"""What an update of the weights is made of, whichever algorithm makes it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from expire_span.memory import LiveMemories, State, state_bytes

from .advantage_scale import AdvantageScale, SolvedSign
from .checks import check_finite_gradient
from .episode_returns import EpisodeReturns
from .extractors import ObservationExtractor
from .losses import normalize
from .metrics import Held, record_learning, record_rollout
from .option_checks import scheduled
from .policy import Evaluation
from .retention import RetentionTracker
from .return_scale import ReturnScale
from .rollout import MemoryRolloutBuffer, RolloutSegment
from .saving import SavedAlgorithm
from .span_control import SpanCoef, SpanControl, UseSign, make_span_control


class LearningAlgorithm(SavedAlgorithm):
    """The learning half of an agent with a memory: before, in and after the minibatches.

    What it learns from has been collected in `rollout_buffer`; `train` is the algorithm's.
    """

    rollout_buffer: MemoryRolloutBuffer
    normalize_advantage: bool
    advantage_scale: AdvantageScale
    return_scale: ReturnScale
    span_control: SpanControl
    span_coef: SpanCoef
    target_live: float | Schedule | None
    use_by: UseSign
    prediction_coef: float
    scale_ent_coef: bool
    min_lr_share: float
    solved_by: SolvedSign
    _tracker: RetentionTracker | None
    _returns: EpisodeReturns | None

    @abstractmethod
    def train(self) -> None:
        """Update the weights from the rollout collected."""

    def _begin_update(self) -> None:
        """Set what an update needs before its first minibatch."""
        self.policy.set_training_mode(True)
        assert self._returns is not None
        buffer = self.rollout_buffer
        self.policy.rescale_values(self.return_scale.update(buffer.returns))
        self.advantage_scale.update(float(buffer.advantages.std()), self._returns.recent)
        scheduled("learning_rate", self.lr_schedule, self._current_progress_remaining)
        self._update_learning_rate(self.policy.optimizer)
        if self.normalize_advantage:
            self.advantage_scale.shorten_steps(
                self.policy.optimizer, self.min_lr_share, self.solved_by
            )
            self.logger.record("train/learning_rate", self.policy.optimizer.param_groups[0]["lr"])
        self.span_control.update(
            self._returns.recent, self._live_mean(), self._current_progress_remaining
        )

    def _advantages(self, segment: RolloutSegment) -> Tensor:
        """Those to learn from: normalised, or else in units of the returns, as values are."""
        if self.normalize_advantage:
            return normalize(segment.advantages, self.advantage_scale.largest)
        return segment.advantages / self.policy.value_scale

    def _total_loss(
        self, policy: Tensor, value: Tensor, entropy: Tensor, evaluation: Evaluation
    ) -> Tensor:
        """What is learned from: the losses of actor, critic and entropy, and of the memory."""
        share = self.advantage_scale.entropy_share if self.scale_ent_coef else 1.0
        actor = policy + self.ent_coef * share * entropy
        critic = self.vf_coef * value / self.policy.value_scale**2
        return actor + critic + self._memory_loss(evaluation)

    def _live_mean(self) -> float:
        live = self._live(self._last_state)
        return float(live.count_BL().float().mean()) - 1 if live is not None else 0.0

    def begin_task(self) -> None:
        """Take nothing of what was learned from as a measure any more: best return and largest
        advantages begin anew. The recent returns stay until episodes of the new task end; without
        them memories would be pressed while it is learned (docs/experiments/instruction.md). So
        do the units of values, which follow the returns, and that the agent has learned something.
        """
        self.span_control = make_span_control(self.span_coef, self.target_live, self.use_by)
        self.advantage_scale = AdvantageScale(self.advantage_scale.has_learned)

    def _evaluate(self, segment: Any) -> Evaluation:
        return self.policy.evaluate_rollout(
            segment.observations, segment.actions, segment.state, segment.episode_starts
        )

    def _memory_loss(self, evaluation: Evaluation) -> Tensor:
        """What shapes the memory: the pressure on spans, its own loss and that of predicting, if
        there are such."""
        aux, prediction = evaluation.aux, evaluation.prediction_loss
        loss = self.span_control.loss(aux, evaluation.preference_BT)
        if aux.memory_loss is not None:
            loss = loss + aux.memory_loss
        if prediction is not None:
            loss = loss + self.prediction_coef * prediction
        return loss

    def _descend(self, loss: Tensor) -> None:
        """One optimizer step, or none if the loss or a gradient is not finite."""
        self.policy.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        check_finite_gradient(
            norm,
            loss,
            self.num_timesteps,
            self.lr_schedule(self._current_progress_remaining),
            self.max_grad_norm,
        )
        self.policy.optimizer.step()

    def _end_update(self, seen: list[Held]) -> None:
        """What an update leaves behind: statistics of the observations, and metrics.

        The statistics come last, so that learning saw the rollout as acting did. Whether the policy
        is of use after it, the next step shows; after the last update there is none, so it is asked
        before it can be saved.
        """
        if isinstance(self.policy.features_extractor, ObservationExtractor):
            self.policy.features_extractor.adapt(self.rollout_buffer.flat_observations())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        record_learning(self.logger, self.policy, self.rollout_buffer)
        self._record_memory(seen)
        if self.num_timesteps >= self._total_timesteps:
            self._check_outputs()

    def _record_memory(self, seen: list[Held]) -> None:
        """Log what the memory held during the rollout. See docs/metrics.md."""
        assert self._last_state is not None and self._tracker is not None
        self.logger.record("memory/bytes", state_bytes(self._last_state))
        self.logger.record("memory/span_coef", self.span_control.coef)
        live, ramp = self._live(self._last_state), self.policy.memory.ramp
        record_rollout(self.logger, seen, self._tracker, live, ramp)

    def _live(self, state: State | None) -> LiveMemories | None:
        return None if state is None else self.policy.memory.live(state)

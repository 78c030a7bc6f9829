"""PPO with a memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule

from .base import MemoryOnPolicyAlgorithm
from .environments import Playable
from .losses import entropy_loss, ppo_policy_loss, value_loss
from .metrics import Held
from .option_checks import check_number, scheduled
from .policy import MemoryActorCriticPolicy
from .rollout import RolloutSegment

FIGURES = (
    "policy_gradient_loss",
    "value_loss",
    "entropy_loss",
    "loss",
    "approx_kl",
    "clip_fraction",
)
"""What each minibatch says of itself, logged as train/... in SB3's names."""


class MemoryPPO(MemoryOnPolicyAlgorithm):
    """Proximal policy optimisation with a memory; swap it for sb3-contrib's `RecurrentPPO`.

    Parameters are SB3's, and those of `MemoryOnPolicyAlgorithm`. What differs from `RecurrentPPO`:

    ============= ============ ========== ==================================================
    parameter     RecurrentPPO here       why
    ============= ============ ========== ==================================================
    learning_rate 3e-4         1e-3       fewer epochs; it shrinks once a task is solved
    n_epochs      10           4          fewer updates, larger steps
    batch_size    128          None       minibatches are whole environments: a multiple of
                                          n_steps, or None for a quarter of the environments
    ent_coef      0            0.01       what to remember shows where choices are tried
    target_kl     None         0.01       keeps a solved policy from drifting
    kl_coef       none         0.3        where nothing is to be gained, stay with what acted
    net_arch      64, 64       none       the memory has feed-forward layers of its own
    Adam's betas  0.9, 0.999   0.9, 0.99  a shorter memory of the gradients' size
    ============= ============ ========== ==================================================

    Advantages are divided by no less than their largest deviation since the agent has learned
    something (`AdvantageScale`), and values learned in units of the returns (`ReturnScale`).

    :param kl_coef: weight of the KL divergence from the policy that acted (eq. 8 of the source),
        beside the clipping. Once a task is solved the right actions have no advantage left that
        would hold them, and a failure in one place turns them over in another

    Source: Schulman et al. 2017, arXiv:1707.06347.
    """

    algorithm = "MemoryPPO"

    def __init__(
        self,
        policy: str | type[MemoryActorCriticPolicy] = "MlpPolicy",
        env: Playable | None = None,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 128,
        batch_size: int | None = None,
        n_epochs: int = 4,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.01,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        target_kl: float | None = 0.01,
        kl_coef: float = 0.3,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.clip_range = clip_range
        self.clip_range_vf = clip_range_vf
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        self.kl_coef = kl_coef
        super().__init__(
            policy,
            env,
            learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            _init_setup_model=_init_setup_model,
            **kwargs,
        )

    def _check_options(self) -> None:
        super()._check_options()
        if not self.n_epochs >= 1:
            raise ValueError(
                f"n_epochs = {self.n_epochs} is below 1, and nothing is learned; use 1 or more"
            )
        check_number("kl_coef", self.kl_coef, "0 or more")
        if not 0 <= self.kl_coef < math.inf:
            raise ValueError(f"kl_coef = {self.kl_coef} is out of bounds; use 0 or more, finite")
        if self.target_kl is not None:
            check_number("target_kl", self.target_kl, "one above 0, or None for no bound")
            if not self.target_kl > 0:
                raise ValueError(
                    f"target_kl = {self.target_kl} must be above 0, or None for no bound on an "
                    "update"
                )
        for name in ("clip_range", "clip_range_vf"):
            clip = getattr(self, name)
            # a function is asked where it is used (`_clip`)
            if isinstance(clip, Real) and not float(clip) > 0:
                raise ValueError(f"{name} = {clip} must be above 0")
        if self.batch_size is not None and (
            self.batch_size < self.n_steps or self.batch_size % self.n_steps
        ):
            below = max(1, self.batch_size // self.n_steps) * self.n_steps
            raise ValueError(
                f"batch_size = {self.batch_size} is not a multiple of n_steps = {self.n_steps}: "
                f"minibatches are whole environments; use {below} or {below + self.n_steps}"
            )

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_vf is not None:
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)

    @property
    def envs_per_batch(self) -> int:
        """Environments in a minibatch."""
        if self.batch_size is None:
            return -(-self.n_envs // 4)
        return min(self.n_envs, self.batch_size // self.n_steps)

    def train(self) -> None:
        """Update the weights from the rollout collected, `n_epochs` times through it."""
        self._begin_update()
        figures: dict[str, list[float]] = {}
        seen: list[Held] = []
        for epoch in range(self.n_epochs):
            self._n_updates += 1
            segments = self.rollout_buffer.segments(self.envs_per_batch, self._rng)
            learned, is_too_far = self._pass(segments, figures)
            if epoch == 0:  # all environments, also those that were not come to
                seen = learned + [self._held(segment) for segment in segments]
            if is_too_far:
                break
        for name, values in figures.items():
            self.logger.record(f"train/{name}", sum(values) / len(values))
        for name in ("clip_range", "clip_range_vf"):
            if (clip := self._clip(name)) is not None:
                self.logger.record(f"train/{name}", clip)
        self._end_update(seen)

    def _pass(
        self, segments: Iterable[RolloutSegment], figures: dict[str, list[float]]
    ) -> tuple[list[Held], bool]:
        """Descend on one minibatch after the other, until the policy has moved too far. Returns
        what the memory held in those taken, and whether it has; the losses go to `figures`."""
        taken = []
        for segment in segments:
            loss, held, now = self._loss(segment)
            taken.append(held)
            for name, figure in now.items():
                figures.setdefault(name, []).append(figure)
            if self.target_kl is not None and now["approx_kl"] > 1.5 * self.target_kl:
                return taken, True
            self._descend(loss)
        return taken, False

    def _clip(self, name: str) -> float | None:
        """The bound of that name in this update; None if there is none."""
        schedule = getattr(self, name)
        if schedule is None:
            return None
        return scheduled(name, schedule, self._current_progress_remaining)

    @torch.no_grad()
    def _held(self, segment: RolloutSegment) -> Held:
        """What the memory held in a minibatch that is not learned from."""
        return Held.of(segment, self._evaluate(segment).aux)

    def _loss(self, segment: RolloutSegment) -> tuple[torch.Tensor, Held, dict[str, float]]:
        """The loss of a minibatch, what the memory held, and the figures to log."""
        clip_range, clip_range_vf = self._clip("clip_range"), self._clip("clip_range_vf")
        assert clip_range is not None
        evaluation = self._evaluate(segment)
        policy = ppo_policy_loss(
            evaluation.log_prob_BT, segment.old_log_prob, self._advantages(segment), clip_range
        )
        value = value_loss(evaluation.values_BT, segment.returns, segment.old_values, clip_range_vf)
        entropy = entropy_loss(evaluation.entropy_BT, evaluation.log_prob_BT)
        loss = self._total_loss(policy.loss, value, entropy, evaluation)
        if self.kl_coef:  # not 0 times a divergence that may be infinite
            loss = loss + self.kl_coef * policy.approx_kl
        figures = torch.stack(
            [policy.loss, value, entropy, loss, policy.approx_kl, policy.clip_fraction]
        ).tolist()
        named = dict(zip(FIGURES, figures, strict=True))
        if evaluation.prediction_loss is not None:
            named["prediction_loss"] = evaluation.prediction_loss.item()
        return loss, Held.of(segment, evaluation.aux), named

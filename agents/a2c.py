"""A2C with a memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.type_aliases import Schedule

from .base import MemoryOnPolicyAlgorithm
from .environments import Playable
from .losses import entropy_loss, value_loss
from .metrics import Held
from .policy import MemoryActorCriticPolicy

RMS_PROP_EPS = 1e-5
"""Epsilon of RMSprop unless another is given; SB3's."""


class MemoryA2C(MemoryOnPolicyAlgorithm):
    """Advantage actor-critic with a memory: one update over all environments per rollout.

    Parameters are SB3's, and those of `MemoryOnPolicyAlgorithm`. Defaults that differ from SB3's
    A2C: learning_rate 1e-3 (7e-4), n_steps 16 (5: too few for a memory to be read), gae_lambda 0.95
    (1), ent_coef 0.01 (0), use_rms_prop False (True; Adam has betas of 0.9 and 0.99), net_arch none
    (64, 64: the memory has layers of its own). Advantages are in units of the returns, as
    values are (`ReturnScale`), and `ent_coef` counts beside them.

    Source: Mnih et al. 2016, arXiv:1602.01783, synchronous.
    """

    algorithm = "MemoryA2C"

    def __init__(
        self,
        policy: str | type[MemoryActorCriticPolicy] = "MlpPolicy",
        env: Playable | None = None,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 16,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        ent_coef: float = 0.01,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        rms_prop_eps: float = RMS_PROP_EPS,
        use_rms_prop: bool = False,
        normalize_advantage: bool = False,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        policy_kwargs: dict[str, Any] | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        self.normalize_advantage = normalize_advantage
        policy_kwargs = dict(policy_kwargs or {})
        if not use_rms_prop and rms_prop_eps != RMS_PROP_EPS:
            raise ValueError(
                f"rms_prop_eps = {rms_prop_eps} is RMSprop's, and use_rms_prop = False leaves it "
                "unused; set use_rms_prop = True, or Adam's with policy_kwargs = "
                "{'optimizer_kwargs': {'eps': ...}}"
            )
        if use_rms_prop:
            if given_class := policy_kwargs.get("optimizer_class"):
                raise ValueError(
                    f"use_rms_prop = True and policy_kwargs' optimizer_class = {given_class} are "
                    "two optimizers; leave one of them out"
                )
            policy_kwargs["optimizer_class"] = torch.optim.RMSprop
            given = policy_kwargs.get("optimizer_kwargs") or {}
            policy_kwargs["optimizer_kwargs"] = {"alpha": 0.99, "eps": rms_prop_eps, **given}
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
            policy_kwargs=policy_kwargs,
            _init_setup_model=_init_setup_model,
            **kwargs,
        )

    @classmethod
    def _completed(
        cls, policy_kwargs: dict[str, Any] | None, stored: dict[str, Any]
    ) -> dict[str, Any]:
        given = super()._completed(policy_kwargs, stored)
        if stored.get("optimizer_class") is torch.optim.RMSprop and "optimizer_class" not in given:
            own = {name: stored["optimizer_kwargs"][name] for name in ("alpha", "eps")}
            given["optimizer_class"] = torch.optim.RMSprop
            given["optimizer_kwargs"] = own | (given.get("optimizer_kwargs") or {})
        return given

    def train(self) -> None:
        """Update the weights once from the rollout collected."""
        self._begin_update()
        segment = self.rollout_buffer.segment(np.arange(self.n_envs))
        evaluation = self._evaluate(segment)
        policy = -(self._advantages(segment) * evaluation.log_prob_BT).mean()
        value = value_loss(evaluation.values_BT, segment.returns)
        entropy = entropy_loss(evaluation.entropy_BT, evaluation.log_prob_BT)
        self._descend(self._total_loss(policy, value, entropy, evaluation))
        self._n_updates += 1
        self.logger.record("train/policy_loss", policy.item())
        self.logger.record("train/value_loss", value.item())
        self.logger.record("train/entropy_loss", entropy.item())
        if evaluation.prediction_loss is not None:
            self.logger.record("train/prediction_loss", evaluation.prediction_loss.item())
        self._end_update([Held.of(segment, evaluation.aux)])

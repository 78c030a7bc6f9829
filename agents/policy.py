"""SB3's actor-critic policy with a memory between the features and the heads."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from expire_span.memory import Aux, Memory, State, make_memory

from .checks import check_observations
from .extractors import ObservationExtractor
from .prediction import NextFeatures, prediction_loss
from .preference import preference

STEADY_ADAM: dict[str, Any] = {"eps": 1e-5, "betas": (0.9, 0.99), "fused": True}
"""Adam's step does not depend on the size of the gradient. Once a task is solved only noise is left
of it, and Adam walks on at full step, which `AdvantageScale` shortens; after a quiet time the first
large gradient moves the weights many steps at once, which a shorter memory of their size prevents.
Fused, because one step over the many small weights otherwise takes a tenth of an update on a CPU.
"""


class Step(NamedTuple):
    """What acting once gives, for every environment."""

    actions: Tensor
    values_B: Tensor
    log_prob_B: Tensor
    state: State


class Evaluation(NamedTuple):
    """What a policy says of a rollout's actions: (B, T) each; entropy is None where unknown.

    `preference` says how decided it was about them. And the loss of predicting what they led to,
    None for a policy that does not predict.
    """

    values_BT: Tensor
    log_prob_BT: Tensor
    entropy_BT: Tensor | None
    preference_BT: Tensor
    aux: Aux
    prediction_loss: Tensor | None


class MemoryActorCriticPolicy(ActorCriticPolicy):
    """observation -> features extractor -> memory -> [net_arch] -> action and value heads.

    Acting (`act`), bootstrapping (`values_of`), `predict` (all three by `Memory.step`) and learning
    (`evaluate_rollout`, by `Memory.unroll`) read the same memory. Takes all of SB3's
    `policy_kwargs` but `share_features_extractor`; `net_arch` (layers behind the memory) is empty
    unless given. With `predicts` it also learns to predict what its actions lead to (`prediction`).

    Raises ValueError for an unknown memory or an unsupported space.
    """

    memory: Memory
    value_scale: Tensor
    predictor: NextFeatures | None

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *args: Any,
        memory: str = "expire-span",
        memory_kwargs: dict[str, Any] | None = None,
        predicts: bool = False,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] = ObservationExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        share_features_extractor: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if args:
            raise TypeError("MemoryActorCriticPolicy takes its options by name")
        if unknown := kwargs.keys() - inspect.signature(ActorCriticPolicy).parameters.keys():
            raise TypeError(
                f"policy_kwargs has {', '.join(sorted(unknown))}, which there is not; size and "
                "layers of the memory are in memory_kwargs={'width': 64, 'n_layers': 2}"
            )
        if not share_features_extractor:
            raise ValueError(
                "share_features_extractor = False is not supported: one memory serves the actor "
                "and the critic; leave it True and use net_arch for separate layers behind it"
            )
        is_ours = issubclass(features_extractor_class, ObservationExtractor)
        if is_ours and not normalize_images:  # pictures in 0..1
            features_extractor_kwargs = {
                "normalized_image": True,
                **(features_extractor_kwargs or {}),
            }
        self.memory_name, self.memory_kwargs = memory, dict(memory_kwargs or {})
        self.predicts, self.scales_pictures = predicts, normalize_images
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[] if net_arch is None else net_arch,
            features_extractor_class=features_extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            # ObservationExtractor tells pictures from symbols itself
            normalize_images=normalize_images and not is_ours,
            optimizer_class=optimizer_class,
            optimizer_kwargs=_steady(optimizer_kwargs or {})
            if optimizer_class is torch.optim.Adam
            else optimizer_kwargs,
            **kwargs,
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        return data | {
            "memory": self.memory_name,
            "memory_kwargs": self.memory_kwargs,
            "predicts": self.predicts,
            "normalize_images": self.scales_pictures,
        }

    def _build_mlp_extractor(self) -> None:
        self.memory = make_memory(self.memory_name, self.features_dim, **self.memory_kwargs)
        self.mlp_extractor = MlpExtractor(
            self.memory.dim_out, self.net_arch, self.activation_fn, device=self.device
        )
        self.predictor = (
            NextFeatures(self.memory.dim_out, self.action_space, self.features_dim)
            if self.predicts
            else None
        )

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        if self.ortho_init:
            # Values start near 0. SB3's gain of 1 is meant for tanh features; behind the memory's
            # normalised output it gives values of +-2, and where episodes are cut by time limits
            # and bootstrapped, a value that is far too high teaches the agent to wait for the cut.
            nn.init.orthogonal_(self.value_net.weight, gain=0.01)
        self.register_buffer("value_scale", torch.ones(()))

    # ---------------------------------------------------------------------------------- acting

    def initial_state(self, n_envs: int) -> State:
        """The memory before the first step of `n_envs` environments."""
        return self.memory.initial_state(n_envs)

    @torch.no_grad()
    def act(
        self, obs: PyTorchObs, state: State, starts_B: Tensor, deterministic: bool = False
    ) -> Step:
        """Choose an action in every environment and remember the step."""
        memory_BD, state = self.memory.step(self._features(obs), state, starts_B)
        latent_pi, latent_vf = self.mlp_extractor(memory_BD)
        distribution = self._get_action_dist_from_latent(latent_pi)
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob_B = distribution.log_prob(actions)
        actions = actions.reshape(-1, *(self.action_space.shape or ()))
        return Step(actions, self._values(latent_vf), log_prob_B, state)

    @torch.no_grad()
    def values_of(self, obs: PyTorchObs, state: State, starts_B: Tensor) -> Tensor:
        """Values of observations that follow `state`, which stays as it is. Shape (B,)."""
        memory_BD, _ = self.memory.step(self._features(obs), state, starts_B)
        return self._values(self.mlp_extractor.forward_critic(memory_BD))

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State]:
        """Actions for one observation or a batch of them, and the state to pass next time.

        The policy itself keeps nothing between calls. `state=None` starts an episode; a caller who
        never passes the returned state on gets an agent that sees each observation as the first.
        With a state, `episode_start` (B,) marks the environments whose episode begins with this
        observation; None: none of them.

        Raises ValueError when state or `episode_start` are of another number of environments, and
        for observations that are not finite or that a discrete space does not count to, or that are
        what gymnasium's `reset` returns, with the info.
        """
        if isinstance(observation, tuple) and len(observation) == 2:
            raise ValueError(
                "predict got a tuple: reset() of a gymnasium environment returns the observation "
                "and an info; pass on the first, as in obs, info = env.reset()"
            )
        self.set_training_mode(False)
        obs_tensor, vectorized = self.obs_to_tensor(observation)
        parts = obs_tensor if isinstance(obs_tensor, dict) else {"": obs_tensor}
        arrays = {name: part.cpu().numpy() for name, part in parts.items()}
        check_observations(self.observation_space, arrays, n_steps=None)
        n_envs = len(next(iter(arrays.values())))
        if state is None:
            state = self.initial_state(n_envs)
            episode_start = np.ones(n_envs, dtype=bool)
        elif type(state) is not (kind := type(self.initial_state(1))):
            raise ValueError(
                f"predict got a state that is a {type(state).__name__}, where this memory's is a "
                f"{kind.__name__}; pass the state that predict returned, or None to start episodes"
            )
        elif (n_state := _batch_size(state)) != n_envs:
            raise ValueError(
                f"predict got {n_envs} observations with a state of {n_state} environments; pass "
                "the state returned for the same environments, or state=None to start episodes"
            )
        elif episode_start is None:
            episode_start = np.zeros(n_envs, dtype=bool)
        starts = np.asarray(episode_start, dtype=bool)
        if starts.size != n_envs:
            raise ValueError(
                f"predict got {n_envs} observations with episode_start of shape {starts.shape}; "
                "give one bool for each environment, or None where no episode begins"
            )
        starts_B = torch.as_tensor(starts.reshape(n_envs), device=self.device)
        step = self.act(obs_tensor, state, starts_B, deterministic)
        actions = self.to_env_actions(step.actions.cpu().numpy())
        return actions if vectorized else actions.squeeze(axis=0), step.state

    def to_env_actions(self, actions: np.ndarray) -> np.ndarray:
        """Unscale or clip actions of a Box space into its bounds; others are left alone."""
        if not isinstance(self.action_space, spaces.Box):
            return actions
        if self.squash_output:
            unscaled: np.ndarray = self.unscale_action(actions)
            return unscaled
        clipped: np.ndarray = np.clip(actions, self.action_space.low, self.action_space.high)
        return clipped

    # -------------------------------------------------------------------------------- learning

    def evaluate_rollout(
        self, obs_BT: PyTorchObs, actions_BT: Tensor, state: State, starts_BT: Tensor
    ) -> Evaluation:
        """Values, log-probabilities and entropies of a rollout, from the state it began with."""
        B, T = starts_BT.shape
        features_BTE = self._features(_flatten_time(obs_BT)).view(B, T, -1)
        memory_BTD, _, aux = self.memory.unroll(features_BTE, state, starts_BT)
        latent_pi, latent_vf = self.mlp_extractor(memory_BTD.flatten(0, 1))
        distribution = self._get_action_dist_from_latent(latent_pi)
        actions = actions_BT.flatten(0, 1)
        log_prob = distribution.log_prob(actions)
        entropy = distribution.entropy()
        foresight = None
        if self.predictor is not None:
            predicted_BTE = self.predictor(memory_BTD, actions_BT)
            foresight = prediction_loss(predicted_BTE, features_BTE, starts_BT)
        return Evaluation(
            self._values(latent_vf).view(B, T),
            log_prob.view(B, T),
            None if entropy is None else entropy.view(B, T),
            preference(distribution, actions).view(B, T),
            aux,
            foresight,
        )

    @torch.no_grad()
    def rescale_values(self, scale: float) -> None:
        """Let the value head learn in units of `scale` from now on; what it says stays. A head of
        several layers says it by its last. Raises ValueError if there is no nn.Linear in it."""
        layers = [part for part in self.value_net.modules() if isinstance(part, nn.Linear)]
        if not layers:
            raise ValueError(
                f"value_net = {self.value_net} has no nn.Linear, whose weights bring values to the "
                "size of the returns; let it end in one"
            )
        for weights in layers[-1].parameters():
            weights.mul_(self.value_scale / scale)
        self.value_scale.fill_(scale)

    def _values(self, latent_vf: Tensor) -> Tensor:
        return self.value_scale * self.value_net(latent_vf)[:, 0]  # type: ignore[no-any-return]

    def _features(self, obs: PyTorchObs) -> Tensor:
        features = self.extract_features(obs)
        assert isinstance(features, Tensor)
        return features

    # -------------------------- SB3's entry points, with state and starts as sb3-contrib has them

    def forward(  # type: ignore[override]
        self, obs: PyTorchObs, state: State, starts_B: Tensor, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """What `act` gives: actions, values (B, 1), log-probabilities (B,) and the new state."""
        step = self.act(obs, state, starts_B, deterministic)
        return step.actions, step.values_B[:, None], step.log_prob_B, step.state

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Not offered: a memory needs whole stretches of episodes. Use `evaluate_rollout`."""
        raise NotImplementedError("a policy with memory is trained by evaluate_rollout")

    @torch.no_grad()
    def get_distribution(  # type: ignore[override]
        self, obs: PyTorchObs, state: State, starts_B: Tensor
    ) -> tuple[Distribution, State]:
        """The distribution of the actions, and the new state."""
        memory_BD, state = self.memory.step(self._features(obs), state, starts_B)
        latent_pi = self.mlp_extractor.forward_actor(memory_BD)
        return self._get_action_dist_from_latent(latent_pi), state

    def predict_values(  # type: ignore[override]
        self, obs: PyTorchObs, state: State, starts_B: Tensor
    ) -> Tensor:
        """What `values_of` gives, (B, 1)."""
        return self.values_of(obs, state, starts_B)[:, None]


def _steady(given: dict[str, Any]) -> dict[str, Any]:
    """Options of Adam: those given before `STEADY_ADAM`, some of which exclude its fused form."""
    defaults = dict(STEADY_ADAM)
    if given.get("foreach") or given.get("differentiable"):
        del defaults["fused"]
    return defaults | given


def _batch_size(state: State) -> int:
    leaf: Any = state
    while not isinstance(leaf, Tensor):
        leaf = leaf[0]
    return leaf.shape[0]


def _flatten_time(obs_BT: PyTorchObs) -> PyTorchObs:
    """(B, T, *shape) -> (B * T, *shape), for each key of a dict."""
    if isinstance(obs_BT, dict):
        return {key: part.flatten(0, 1) for key, part in obs_BT.items()}
    return obs_BT.flatten(0, 1)

"""Agents that are saved whole: with their random numbers, checked when loaded, and rescued when
training has to stop."""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection
from itertools import chain, count
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.save_util import json_to_data
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage

from expire_span.memory import State, map_state

from .checks import (
    CHECKPOINT_FORMAT,
    CheckpointError,
    DivergedError,
    NonFiniteError,
    check_checkpoint,
    check_finite_observations,
    check_outputs,
    check_weights,
)
from .environments import CopyableTranspose, Playable, playable_env
from .option_checks import check_changes_on_load, check_seed
from .policy import MemoryActorCriticPolicy
from .random_state import RandomState

OWN_POLICY_KWARGS = ("memory", "memory_kwargs", "predicts")
"""What an agent adds to the `policy_kwargs` it is given."""


class SavedAlgorithm(OnPolicyAlgorithm):
    """SB3's on-policy algorithm, saved so that what is loaded goes on as if never stopped."""

    algorithm: ClassVar[str]
    """Name under which checkpoints are saved; a sub-class loads those of its parent."""
    policy: MemoryActorCriticPolicy
    rescue_path: str
    run_options: dict[str, dict[str, Any]] | None = None
    """All options of the run of `train_rl.py` that trains it, which goes on with no others."""
    run_stage: Any = None
    """The stage of that run's curriculum, a `training.curriculum.Stage`."""
    _rng: np.random.Generator
    _random_state: RandomState | None = None
    _last_state: State | None = None
    """The memory of the running episodes."""

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """SB3's `learn`. A value that is not finite stops it with the model saved."""
        if self.env is None:
            raise ValueError(
                "env = None: an agent that was loaded without an environment has none to learn in; "
                "give it to load(path, env=...) or to set_env"
            )
        try:
            return super().learn(
                total_timesteps,
                callback,
                log_interval,
                tb_log_name or type(self).__name__,
                reset_num_timesteps,
                progress_bar,
            )
        except (ValueError, RuntimeError) as error:  # torch's, for logits that are not finite
            cause = self._cause(error)
            if isinstance(cause, NonFiniteError):
                raise self._rescued(cause) from None
            raise

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """SB3's, but never below 0: where the last rollout goes on beyond the training, a schedule
        that falls to 0 would turn negative and the agent learn backwards."""
        done = min(num_timesteps, total_timesteps)
        super()._update_current_progress_remaining(done, total_timesteps)

    def _cause(self, error: Exception) -> Exception:
        """That the policy has diverged, if it has, or else the error itself."""
        try:
            check_weights(self.policy, self.num_timesteps)
            if not isinstance(error, DivergedError):
                self._check_outputs()
        except DivergedError as lost:
            return lost
        except (ValueError, RuntimeError):
            pass  # not of the weights: the error there is says more
        return error

    def _check_outputs(self) -> None:
        """Raise DivergedError if what the policy says of the last observations is of no use."""
        if self._last_obs is None or self._last_state is None:
            return
        check_finite_observations(self._last_obs, self.num_timesteps)
        self.policy.set_training_mode(False)
        check_outputs(
            self.policy,
            obs_as_tensor(self._last_obs, self.device),
            self._last_state,
            torch.as_tensor(self._last_episode_starts, device=self.device),
            self.num_timesteps,
        )

    def _rescued(self, error: NonFiniteError) -> NonFiniteError:
        """The error, with the place where the model is saved."""
        path = _free_path(Path(self.rescue_path))
        try:
            self.save(path)
        except OSError as reason:
            kept = f"The model could not be saved in {path}: {reason.strerror}"
        else:
            kept = f"The model is saved in {path}"
        return type(error)(f"{error}. {kept}")

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        wrapped = OnPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        if wrapped is not env and type(wrapped) is VecTransposeImage:
            return CopyableTranspose(wrapped.venv)
        return wrapped

    def _setup_model(self) -> None:
        pending = self._random_state  # of a file: to go on with, whatever making a network draws
        super()._setup_model()
        self._random_state = pending

    def set_random_seed(self, seed: int | None = None) -> None:
        """SB3's, for the order of minibatches too, and in place of what a checkpoint says."""
        super().set_random_seed(seed)
        if seed is not None:
            self._rng = np.random.default_rng(seed)
            self._random_state = None

    def save(self, *args: Any, **kwargs: Any) -> None:
        """SB3's `save`. The memory of the running episodes and the random state go along, so that
        `learn(reset_num_timesteps=False)` goes on as if never stopped after `load` with the same
        environments and `force_reset=False`; without the latter new episodes begin."""
        pending = self._random_state  # of an agent loaded and not gone on with
        self._random_state = pending or RandomState.now(self.device, self._rng)
        self.saved_by, self.checkpoint_format = self.algorithm, CHECKPOINT_FORMAT
        state = self._last_state
        if state is not None:  # a machine without this one's device would not read it
            self._last_state = map_state(lambda leaf: leaf.cpu(), state)
        try:
            super().save(*args, **kwargs)
        finally:  # for the file alone: this agent goes on as if never saved
            self._random_state, self._last_state = pending, state

    @classmethod
    def load(
        cls,
        path: Any,
        env: Playable | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Any:
        """SB3's `load`; `env` may be an id, of which as many are made as the agent had. What
        `kwargs` and `custom_objects` change is what the agent goes on with.

        Raises: `CheckpointError`, with the reason, for other files; ValueError for options that the
        network was made with.
        """
        data = check_checkpoint(path, cls.algorithm)
        custom_objects = dict(custom_objects or {})
        changes = custom_objects | kwargs
        check_changes_on_load(cls, kwargs, changes)
        check_seed(changes.get("seed"))
        for given in (custom_objects, kwargs):
            if "policy_kwargs" in given:
                stored = _stored_policy_kwargs(data)
                given["policy_kwargs"] = cls._completed(given["policy_kwargs"], stored)
        by_id = env if isinstance(env, str) else None
        made = None if by_id else playable_env(env, changes.get("n_envs"), None)
        try:
            model = super().load(
                path, made, device, custom_objects, print_system_info, force_reset, **kwargs
            )
        except pickle.UnpicklingError:  # torch's advice is to trust the file
            raise CheckpointError(
                f"{path} is corrupt: its weights cannot be read; load a file written by "
                f"{cls.algorithm}.save"
            ) from None
        if by_id:
            model.set_env(by_id, force_reset)  # type: ignore[arg-type]
        model._take_changes(changes)
        model._tell_progress()
        return model

    @classmethod
    def _completed(
        cls, policy_kwargs: dict[str, Any] | None, stored: dict[str, Any]
    ) -> dict[str, Any]:
        """Those given, with what making an agent adds to them: SB3 compares them with those
        stored."""
        own = {name: stored[name] for name in OWN_POLICY_KWARGS if name in stored}
        return own | (policy_kwargs or {})

    def _take_changes(self, changes: Collection[str]) -> None:
        """Go on with options that are set, also where something was made of them before."""
        if "seed" in changes:
            self._random_state = None

    def _tell_progress(self) -> None:
        """Tell the memory how much of the training is done."""
        self.policy.memory.set_progress(self.num_timesteps / max(1, self._total_timesteps))


def _stored_policy_kwargs(data: dict[str, Any]) -> dict[str, Any]:
    """Those in what a file says of an agent."""
    part = json_to_data(json.dumps({"policy_kwargs": data.get("policy_kwargs", {})}))
    return part.get("policy_kwargs", {})  # type: ignore[no-any-return]


def _free_path(wanted: Path) -> Path:
    """The path in full, with SB3's suffix; numbered if an earlier agent was rescued there."""
    path = wanted.absolute() if wanted.suffix else wanted.absolute().with_suffix(".zip")
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(free for free in chain([path], numbered) if not free.exists())

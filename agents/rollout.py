"""Rollout storage: whole environments from one saved memory state, no padding."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.preprocessing import get_obs_shape
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from expire_span.memory import State, select_envs


class RolloutSegment(NamedTuple):
    """The rollout of some environments: (B, T, ...) tensors and the state it began with."""

    observations: PyTorchObs
    actions: Tensor
    state: State
    episode_starts: Tensor
    old_values: Tensor
    old_log_prob: Tensor
    advantages: Tensor
    returns: Tensor
    shows_cue: Tensor


class MemoryRolloutBuffer(RolloutBuffer):
    """SB3's rollout buffer (its GAE, its bookkeeping) with minibatches of whole environments.

    Arrays are stored (T, B, ...), as collected; observations by key, "" where the space is no Dict,
    and in the dtype they come in: that of their space would round what `VecNormalize` makes of it.
    `initial_state` is the memory at the first step: one state per environment and rollout is
    enough, since learning unrolls from it.
    """

    initial_state: State
    stored: dict[str, np.ndarray]

    def reset(self) -> None:
        """Empty the buffer."""
        shape = (self.buffer_size, self.n_envs)
        space: Any = self.observation_space
        self.stored = {  # until the first step tells the dtypes
            key: np.zeros((*shape, *get_obs_shape(part)), part.dtype)
            for key, part in (space.items() if isinstance(space, spaces.Dict) else [("", space)])
        }
        # those of a Box are drawn and scored in single precision, whatever the environment takes
        is_box = isinstance(self.action_space, spaces.Box)
        action_dtype = np.float32 if is_box else self.action_space.dtype
        self.actions = np.zeros((*shape, self.action_dim), dtype=action_dtype)
        self.rewards, self.returns, self.advantages, self.values, self.log_probs = (
            np.zeros(shape, dtype=np.float32) for _ in range(5)
        )
        self.episode_starts = np.zeros(shape, dtype=np.float32)
        self.shows_cue = np.zeros(shape, dtype=np.bool_)
        self.pos = 0
        self.full = False

    def add(  # type: ignore[override]
        self,
        obs: np.ndarray | dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        shows_cue: np.ndarray,
    ) -> None:
        """Store one step of every environment; values and log-probabilities come in `finish`."""
        space: Any = self.observation_space
        for key, part in (obs if isinstance(obs, dict) else {"": obs}).items():
            kind = space[key] if key else space
            shape = (self.n_envs, *get_obs_shape(kind))
            if self.pos == 0:
                # whole numbers may be but the first observations of a space that has others
                has_others = np.issubdtype(kind.dtype, np.floating)
                is_whole = not np.issubdtype(part.dtype, np.floating)
                dtype = kind.dtype if has_others and is_whole else part.dtype
                self.stored[key] = np.zeros((self.buffer_size, *shape), dtype)
            self.stored[key][self.pos] = part.reshape(shape)
        self.actions[self.pos] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[self.pos] = reward
        self.episode_starts[self.pos] = episode_start
        self.shows_cue[self.pos] = shows_cue
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def finish(
        self, values_TB: Tensor, log_probs_TB: Tensor, last_values_B: Tensor, dones: np.ndarray
    ) -> None:
        """Add what the policy said of the rollout, and compute advantages and returns from it."""
        self.values[:] = values_TB.cpu().numpy()
        self.log_probs[:] = log_probs_TB.cpu().numpy()
        self.compute_returns_and_advantage(last_values_B, dones)

    @property
    def observations(self) -> np.ndarray | dict[str, np.ndarray]:  # type: ignore[override]
        """Those stored, (T, B, *shape), for each key of a dict."""
        return self.stored if isinstance(self.observation_space, spaces.Dict) else self.stored[""]

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        """Not offered: a memory is learned from in stretches of steps. Use `segments`."""
        raise NotImplementedError(
            "minibatches of single steps have no memory; segments(n_envs, rng) gives whole "
            "environments, segment(envs) those chosen, observations and other arrays all steps"
        )

    def segments(self, n_envs: int, rng: np.random.Generator) -> Iterator[RolloutSegment]:
        """The rollout once through, `n_envs` environments at a time, in random order."""
        assert self.full
        for envs in np.split(rng.permutation(self.n_envs), range(n_envs, self.n_envs, n_envs)):
            yield self.segment(envs)

    def segment(self, envs: np.ndarray) -> RolloutSegment:
        """The rollout of the environments `envs` (indices)."""
        obs: Any = {key: self._pick(array, envs) for key, array in self.stored.items()}
        actions_BTA = self._pick(self.actions, envs)
        if isinstance(self.action_space, spaces.Discrete):
            actions_BTA = actions_BTA[..., 0].long()
        elif isinstance(self.action_space, spaces.MultiBinary):
            actions_BTA = actions_BTA.float()  # torch's Bernoulli takes nothing else
        return RolloutSegment(
            observations=obs if isinstance(self.observation_space, spaces.Dict) else obs[""],
            actions=actions_BTA,
            state=select_envs(self.initial_state, torch.as_tensor(envs, device=self.device)),
            episode_starts=self._pick(self.episode_starts, envs).bool(),
            old_values=self._pick(self.values, envs),
            old_log_prob=self._pick(self.log_probs, envs),
            advantages=self._pick(self.advantages, envs),
            returns=self._pick(self.returns, envs),
            shows_cue=self._pick(self.shows_cue, envs),
        )

    def flat_observations(self) -> PyTorchObs:
        """Every observation of the rollout, (T * B, *shape), for each key of a dict."""
        obs: Any = {
            key: torch.as_tensor(array.reshape(-1, *array.shape[2:]), device=self.device)
            for key, array in self.stored.items()
        }
        return obs if isinstance(self.observation_space, spaces.Dict) else obs[""]  # type: ignore[no-any-return]

    def _pick(self, array: np.ndarray, envs: np.ndarray) -> Tensor:
        """(T, B, ...) -> (B', T, ...)."""
        return torch.as_tensor(array[:, envs].swapaxes(0, 1).copy(), device=self.device)


def check_buffer_class(kind: Any) -> None:
    """Raise TypeError for a buffer that has no place for the memory."""
    if not (isinstance(kind, type) and issubclass(kind, MemoryRolloutBuffer)):
        raise TypeError(
            f"rollout_buffer_class = {kind} keeps no memory; leave it out, or derive it from "
            "expire_span.agents.rollout.MemoryRolloutBuffer"
        )


def cut_episodes(
    space: spaces.Space[Any], infos: Sequence[dict[str, Any]], dones_B: np.ndarray
) -> tuple[list[int], Any]:
    """The environments whose episode a time limit has cut, and their last observations."""
    cut = [
        i
        for i in np.flatnonzero(dones_B).tolist()
        if infos[i].get("TimeLimit.truncated", False)
        and infos[i].get("terminal_observation") is not None
    ]
    last = [infos[i]["terminal_observation"] for i in cut]
    if not last:
        return cut, None
    if isinstance(space, spaces.Dict):
        return cut, {key: _stacked(part, [obs[key] for obs in last]) for key, part in space.items()}
    return cut, _stacked(space, last)


def _stacked(space: spaces.Space[Any], observations: Sequence[Any]) -> np.ndarray:
    """In the shape of their space, as SB3 gives all others: some environments return [x] as x."""
    return np.stack(observations).reshape(-1, *(space.shape or ()))

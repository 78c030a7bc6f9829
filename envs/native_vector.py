"""Many environments of one kind in one process: what every native vector form shares.

Seeding, resets, automatic resets, infos in gymnasium's vector form and checks. What is played
stands in the subclasses, in array arithmetic over all environments.

B environments, E environments whose episode ended.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .bounds import check_whole

Infos = dict[str, Any]
Actions = NDArray[np.int64]


class Outcome(NamedTuple):
    """What a step brought: rewards (B,) float64; where the episode succeeded, if it ends now, and
    where it ends, both (B,) bool."""

    reward_B: NDArray[np.float64]
    success_B: NDArray[np.bool_]
    ended_B: NDArray[np.bool_]


class NativeVectorEnv(VectorEnv[NDArray[Any], Actions, NDArray[Any]]):
    """`num_envs` environments in one process, equal step by step to as many single forms.

    Environment i seeded with s plays the episodes of a single form seeded with s + i, for any
    number of episodes. Episodes end and begin within one step (`AutoresetMode.SAME_STEP`): the last
    observation and info of an ended episode are in `infos["final_obs"]` and `infos["final_info"]`,
    in the form of gymnasium's `SyncVectorEnv`.

    Shapes: observations (B, *shape of one); rewards (B,) float64; terminations and truncations
    (B,) bool; actions (B,) or (B, parts) integers. Arrays returned are the caller's to keep.

    Raises: ValueError for arguments out of bounds, a `render_mode` the form does not have, and
    actions that do not exist; gymnasium's ResetNeeded for a step before every environment has
    been reset.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    actions_are: str
    """The actions there are, in words, for the message that refuses another."""

    def __init__(
        self,
        num_envs: int,
        single_observation_space: spaces.Box,
        single_action_space: spaces.Discrete | spaces.MultiDiscrete,
        render_mode: str | None,
    ) -> None:
        check_whole(num_envs=num_envs)
        if num_envs < 1:
            raise ValueError(f"num_envs = {num_envs} is below 1; use 1 or more")
        (mode,) = self.metadata["render_modes"]
        if render_mode not in (None, mode):
            raise ValueError(
                f"render_mode = {render_mode!r} is neither None nor {mode!r}; for a window, "
                "use the single form (gymnasium.make)"
            )
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.single_observation_space = single_observation_space
        self.single_action_space = single_action_space
        self.observation_space = batch_space(single_observation_space, num_envs)
        self.action_space = batch_space(single_action_space, num_envs)
        self._n_actions = (
            single_action_space.n
            if isinstance(single_action_space, spaces.Discrete)
            else single_action_space.nvec
        )
        self._envs_B = np.arange(num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._begun_B = np.zeros(num_envs, np.bool_)

    # ------------------------------------------------------------------------ what a task defines

    @abstractmethod
    def _begin_episode(self, i: int, generator: np.random.Generator) -> None:
        """Draw an episode for environment `i` and lay it out."""

    @abstractmethod
    def _play(self, action_B: Actions) -> Outcome:
        """Take the actions."""

    @abstractmethod
    def _observe(self, envs: NDArray[np.int64]) -> NDArray[Any]:
        """Observations of the environments `envs`, an array of its own."""

    @abstractmethod
    def _marks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Number of the cue and of the decision the last observations are, -1 for none."""

    def _tallies(self) -> dict[str, NDArray[np.int64]]:
        """What has been counted in the running episodes, by name; empty if nothing is."""
        return {}

    @abstractmethod
    def _paint(self, i: int) -> Any:
        """Picture, or text, of environment `i`."""

    # ----------------------------------------------------------------------- gymnasium's interface

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[Any], Infos]:
        """Start an episode in every environment.

        A `seed` s seeds environment i with s + i; a list holds one seed per environment, None
        leaving that one's generator as it is. `options["reset_mask"]` (B,) bool restricts the
        reset to some environments.
        """
        mask_B = np.ones(self.num_envs, np.bool_)
        if options is not None and "reset_mask" in options:
            mask_B = np.asarray(options["reset_mask"])
            if mask_B.shape != (self.num_envs,) or mask_B.dtype != np.bool_ or not mask_B.any():
                raise ValueError(
                    f"options['reset_mask'] = {mask_B!r} is not a bool array of shape "
                    f"({self.num_envs},) with a True in it; leave it out to reset all"
                )
        seeds = self._seed_list(seed)
        for i in np.flatnonzero(mask_B).tolist():
            if seeds[i] is not None:
                self._generators[i], _ = seeding.np_random(seeds[i])
            self._begin(i)
        self._begun_B |= mask_B
        obs_BO = self._observe(self._envs_B)
        return obs_BO, self._memory_info(mask_B)

    def step(
        self, actions: Actions
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], Infos]:
        """Take one action in every environment; environments that end begin anew at once."""
        reward_B, success_B, ended_B = self._play(self._checked(actions))
        obs_BO = self._observe(self._envs_B)
        infos: Infos = {}
        if ended_B.any():
            infos = self._final_infos(obs_BO, success_B, ended_B)
            ended_E = np.flatnonzero(ended_B)
            for i in ended_E.tolist():
                self._begin(i)
            obs_BO[ended_E] = self._observe(ended_E)
        infos |= self._memory_info(np.ones(self.num_envs, np.bool_))
        return obs_BO, reward_B, ended_B, np.zeros_like(ended_B), infos

    def render(self) -> tuple[Any, ...] | None:
        """What the single form renders, of every environment; None without a mode."""
        if self.render_mode is None:
            return None
        return tuple(self._paint(i) for i in range(self.num_envs))

    def _begin(self, i: int) -> None:
        generator = self._generators[i]
        if generator is None:
            generator, _ = seeding.np_random()
            self._generators[i] = generator
        self._begin_episode(i, generator)

    # ------------------------------------------------------------------------------------- infos

    def _memory_info(self, mask_B: NDArray[np.bool_]) -> Infos:
        """The marks of the last observations, where `mask_B` says there are any."""
        cue_B, decision_B = self._marks()
        marks = _masked(mask_B, "cue", cue_B) | _masked(mask_B, "decision", decision_B)
        return {"memory": marks, "_memory": mask_B.copy()}

    def _final_infos(
        self,
        obs_BO: NDArray[Any],
        success_B: NDArray[np.bool_],
        ended_B: NDArray[np.bool_],
    ) -> Infos:
        """Last observation and info of the episodes that ended, as `SyncVectorEnv` gives them."""
        final_obs_B = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended_B):
            final_obs_B[i] = obs_BO[i].copy()
        final_info = self._memory_info(ended_B)
        final_info |= _masked(ended_B, "is_success", success_B)
        tallies: Infos = {}
        for name, count_B in self._tallies().items():
            tallies |= _masked(ended_B, name, count_B)
        if tallies:
            final_info |= {"tallies": tallies, "_tallies": ended_B.copy()}
        return {
            "final_obs": final_obs_B,
            "_final_obs": ended_B.copy(),
            "final_info": final_info,
            "_final_info": ended_B.copy(),
        }

    # ------------------------------------------------------------------------------------- checks

    def _seed_list(self, seed: int | list[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(
                f"seed has {len(seed)} entries for num_envs = {self.num_envs}; "
                "pass one per environment, or one integer for all"
            )
        return list(seed)

    def _checked(self, actions: Actions) -> Actions:
        if not self._begun_B.all():
            raise ResetNeeded(
                f"step() before the first reset() of {np.sum(~self._begun_B)} of {self.num_envs} "
                "environments; call reset(seed=...) first"
            )
        action_B = np.asarray(actions)
        if action_B.shape != self.action_space.shape:
            raise ValueError(
                f"actions have shape {action_B.shape}, not {self.action_space.shape}; "
                "pass one action per environment"
            )
        if not np.issubdtype(action_B.dtype, np.integer):
            raise ValueError(
                f"actions are of type {action_B.dtype}, not whole numbers: {self.actions_are}"
            )
        if action_B.min() < 0 or (action_B >= self._n_actions).any():
            raise ValueError(f"actions = {action_B} hold other values than {self.actions_are}")
        return action_B


def _masked(mask_B: NDArray[np.bool_], key: str, value_B: NDArray[Any]) -> Infos:
    """An info in gymnasium's vector form: zero where `mask_B` is False, the mask beside it."""
    return {key: np.where(mask_B, value_B, np.zeros((), value_B.dtype)), f"_{key}": mask_B.copy()}

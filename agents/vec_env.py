"""gymnasium's vector environments as SB3's, and the marks that environments leave.

SB3's own vector environments run one Python environment after another. `GymnasiumVecEnv` lets SB3
drive a gymnasium vector environment instead, which steps all of its environments at once;
`environments.make_vec_env` chooses; `read_marks` reads the `memory` marks of either.

B environments.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

Info = dict[str, Any]

MARKS = frozenset({"cue", "decision"})
"""What `info["memory"]` may say."""

MOST_CUES = 2**63
"""Numbers of cues stay below it: they are kept as int64."""


class GymnasiumVecEnv(VecEnv):
    """An SB3 `VecEnv` over a gymnasium vector environment.

    What a step returns for an environment whose episode ended, as from SB3's `DummyVecEnv`: the
    observation is the first of the next episode, the info that of the last step, with
    `terminal_observation` and `TimeLimit.truncated` added; the info of the next episode's reset is
    in `reset_infos`. One thing differs, so that marks and observations always belong together:
    `infos[i]["memory"]` marks the observation returned, and `infos[i]["terminal_memory"]` the
    terminal one.

    Attributes, and methods called by name, are those of the vector environment, which has no
    environments of its own to ask: see `get_attr`, `set_attr`, `env_method`.

    Shapes: rewards (B,) float32, dones (B,) bool. Observations are copies.

    Raises: ValueError if `vector_env` does not reset in the step that ends an episode.
    """

    def __init__(self, vector_env: VectorEnv[Any, Any, Any]) -> None:
        mode = vector_env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"autoreset_mode = {mode} of {vector_env}: SB3 needs AutoresetMode.SAME_STEP. "
                'Build it with gymnasium.make_vec(id, vectorization_mode="sync", vector_kwargs='
                '{"autoreset_mode": AutoresetMode.SAME_STEP}), or use make_vec_env(id, n_envs)'
            )
        self.vector_env = vector_env
        super().__init__(
            vector_env.num_envs,
            vector_env.single_observation_space,
            vector_env.single_action_space,
        )

    def reset(self) -> VecEnvObs:
        """Start an episode everywhere, with the seeds and options set before, which are spent."""
        if any(options != self._options[0] for options in self._options):
            raise ValueError(
                "set_options got different options for different environments; a gymnasium vector "
                "environment takes one dict for all, so pass a dict"
            )
        # VecEnv.seed numbers the environments upwards, and so does gymnasium, given one integer
        obs, infos = self.vector_env.reset(seed=self._seeds[0], options=self._options[0] or None)
        self.reset_infos = split_infos(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return _copied(obs)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step; see the class for what comes back when episodes end."""
        obs, rewards, terminated_B, truncated_B, vector_infos = self.vector_env.step(self._actions)
        done_B = np.asarray(terminated_B | truncated_B)
        infos = split_infos(vector_infos, self.num_envs)
        for i in np.flatnonzero(done_B):
            last, final_obs = infos[i].pop("final_info", {}), infos[i].pop("final_obs")
            self.reset_infos[i] = infos[i]
            infos[i] = _last_info(last, infos[i], deepcopy(final_obs))
        for info, cut in zip(infos, (truncated_B & ~terminated_B).tolist(), strict=True):
            info["TimeLimit.truncated"] = cut
        return _copied(obs), np.array(rewards, np.float32), done_B.astype(np.bool_), infos

    def close(self) -> None:
        """Close the vector environment."""
        self.vector_env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """One picture per environment, as the vector environment renders them."""
        frames: Any = self.vector_env.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The vector environment's attribute, repeated once per environment asked for."""
        value = self._attribute(attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment, and so of all environments."""
        chosen = set(self._get_indices(indices))
        if chosen != set(range(self.num_envs)):
            raise ValueError(
                f"indices = {sorted(chosen)} leave out some of the {self.num_envs} environments of "
                f"{self.vector_env}, which share the attribute {attr_name!r}; leave out indices"
            )
        setattr(self.vector_env.unwrapped, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method of the vector environment once; one result per environment asked for.

        A tuple, list or array with one entry per environment is handed out by entry; any other
        result is the same for all.
        """
        method = self._attribute(method_name) if self.has_attr(method_name) else None
        if not callable(method):
            raise AttributeError(
                f"{self.vector_env} has no method {method_name!r}; define it on the vector "
                "environment, returning one entry per environment, or use single environments "
                "(SB3's DummyVecEnv)"
            )
        result: Any = method(*method_args, **method_kwargs)
        by_entry = isinstance(result, tuple | list | np.ndarray) and len(result) == self.num_envs
        return [result[i] if by_entry else result for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """False everywhere: there are no single environments to wrap."""
        return [False for _ in self._get_indices(indices)]

    def _attribute(self, name: str) -> Any:
        """From the outermost wrapper, or else from the environment: wrappers pass on few names."""
        outermost = hasattr(self.vector_env, name)
        return getattr(self.vector_env if outermost else self.vector_env.unwrapped, name)


def split_infos(vector_infos: Info, n_envs: int) -> list[Info]:
    """One info dict per environment from gymnasium's vector form.

    An entry `key` goes to the environments for which the mask `_key` is True, to all if there is no
    mask. Nested dicts are split likewise. Numbers come out as Python's own.
    """
    rows: list[Info] = [{} for _ in range(n_envs)]
    for key, values in vector_infos.items():
        if key.startswith("_") and key[1:] in vector_infos:
            continue
        if isinstance(values, dict):
            values = split_infos(values, n_envs)
        elif isinstance(values, np.ndarray) and values.shape[:1] == (n_envs,):
            # copied, so that rows do not change when the environment reuses its arrays
            values = values.tolist() if values.ndim == 1 else list(values.copy())
        else:
            values = [values] * n_envs
        mask_B = vector_infos.get(f"_{key}")
        if mask_B is None or mask_B.all():
            for row, value in zip(rows, values, strict=True):
                row[key] = value
        else:
            for i in np.flatnonzero(mask_B):
                rows[i][key] = values[i]
    return rows


def read_marks(
    vec_env: VecEnv,
    infos: Sequence[Info] | None = None,
    dones: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The `memory` marks of the observations just returned, by any SB3 `VecEnv`.

    Pass what `step` returned with the observations; nothing after `reset`. Where an episode ended,
    SB3's vector environments leave the terminal observation's info in `infos`, so the mark of the
    observation returned is taken from the reset.

    Returns: cue_B and decision_B, int64; -1 where the observation is none, or has no marks.

    Raises ValueError for the first mark that is none.
    """
    # wrappers have a reset_infos of their own, which SB3 never fills
    reset_infos = vec_env.unwrapped.reset_infos
    if infos is None or dones is None:
        rows = list(reset_infos)
    else:
        rows = [reset_infos[i] if done else infos[i] for i, done in enumerate(dones)]
    marks = [row.get("memory", {}) for row in rows]
    try:
        cue_B = np.array([mark.get("cue", -1) for mark in marks])
        decision_B = np.array([mark.get("decision", -1) for mark in marks])
        usual = set().union(*marks) <= MARKS
        usual &= all(m_B.dtype == np.int64 and m_B.ndim == 1 for m_B in (cue_B, decision_B))
    except (AttributeError, OverflowError, TypeError, ValueError):
        usual = False
    if not usual:  # looked at one by one, which costs too much at every step
        _check_marks(marks)
        return cue_B.astype(np.int64), decision_B.astype(np.int64)
    return cue_B, decision_B


def is_whole(number: Any) -> bool:
    """Whether this is a whole number, of Python's or numpy's; a float such as 3.0 is one too."""
    if isinstance(number, float | np.floating):
        return number.is_integer()
    return isinstance(number, int | np.integer)


def _check_marks(marks: Sequence[Any]) -> None:
    """Raise ValueError for the first mark that is none."""
    for i, mark in enumerate(marks):
        if not isinstance(mark, dict) or not all(
            key in MARKS and is_whole(number) and abs(number) < MOST_CUES
            for key, number in mark.items()
        ):
            raise ValueError(
                f'info["memory"] = {mark!r} of environment {i} marks nothing: it must be '
                '{"cue": k, "decision": j} with whole numbers below 2**63, -1 for neither. An '
                "environment that uses the entry for something else needs a wrapper that renames it"
            )


def _last_info(last: Info, reset: Info, terminal_observation: Any) -> Info:
    """The info of an episode's last step, with the mark moved to the observation returned."""
    if "memory" in last:
        last["terminal_memory"] = last.pop("memory")
    if "memory" in reset:
        last["memory"] = reset["memory"]
    last["terminal_observation"] = terminal_observation
    return last


def _copied(obs: Any) -> VecEnvObs:
    """A copy that later steps cannot write to: some vector environments return their buffers."""
    copy: VecEnvObs = deepcopy(obs)
    return copy

"""Environments for SB3 algorithms: native gymnasium vector environments where there are any.

SB3's own vector environments run one Python environment after another. `GymnasiumVecEnv` lets SB3
drive a gymnasium vector environment instead, which steps all of its environments at once;
`make_vec_env` chooses; `read_marks` reads the `memory` marks of whichever was chosen.

B environments.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

from .extractors import check_action_space, check_space

Info = dict[str, Any]
Playable = GymEnv | VectorEnv[Any, Any, Any] | str
"""What an agent takes as its environments: SB3's kinds, gymnasium's vector environments, an id."""

DEFAULT_N_ENVS = 16
"""Environments made for an agent that is given an id and no number."""


class MiniGridTask(gym.ObservationWrapper[Any, Any, Any]):
    """A MiniGrid environment as an SB3 algorithm can play it: the image without the mission's text.

    MiniGrid's tasks pay only for success, and report none: at the end of an episode
    `info["is_success"]` says whether the last step was paid for.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, gym.spaces.Dict)
        self.observation_space = env.observation_space["image"]

    def observation(self, observation: Any) -> Any:
        """The image of what MiniGrid shows."""
        return observation["image"]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        """MiniGrid's step, with `is_success` at the end of an episode."""
        obs, reward, terminated, truncated, info = super().step(action)
        if terminated or truncated:
            info.setdefault("is_success", float(reward) > 0)
        return obs, reward, terminated, truncated, info


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
    """
    # wrappers have a reset_infos of their own, which SB3 never fills
    reset_infos = vec_env.unwrapped.reset_infos
    if infos is None or dones is None:
        rows = list(reset_infos)
    else:
        rows = [reset_infos[i] if done else infos[i] for i, done in enumerate(dones)]
    marks = [row.get("memory", {}) for row in rows]
    try:
        cue_B = np.array([mark.get("cue", -1) for mark in marks], np.int64)
        decision_B = np.array([mark.get("decision", -1) for mark in marks], np.int64)
    except (AttributeError, TypeError, ValueError):
        raise _wrong_mark(marks) from None
    if infos is None and any(mark.keys() - {"cue", "decision"} for mark in marks):
        raise _wrong_mark(marks)
    return cue_B, decision_B


def _wrong_mark(marks: Sequence[Any]) -> ValueError:
    """Of the marks, the first that is none."""

    def is_mark(mark: Any) -> bool:
        return isinstance(mark, dict) and all(
            key in ("cue", "decision") and isinstance(number, int | np.integer)
            for key, number in mark.items()
        )

    i, mark = next((i, mark) for i, mark in enumerate(marks) if not is_mark(mark))
    return ValueError(
        f'info["memory"] = {mark!r} of environment {i} marks nothing: it must be '
        '{"cue": k, "decision": j} with whole numbers, -1 for neither. An environment that uses '
        "the entry for something else needs a wrapper that renames it"
    )


def playable_env(env: Playable | None, n_envs: int | None, seed: int | None) -> GymEnv | None:
    """The environments of an id, or those given, if an agent with memory can play them. A vector
    environment of gymnasium's is taken as `GymnasiumVecEnv`."""
    if isinstance(env, VectorEnv):
        env = VecMonitor(GymnasiumVecEnv(env))
    if isinstance(env, str):
        env = make_vec_env(env, DEFAULT_N_ENVS if n_envs is None else n_envs, seed=seed)
    elif n_envs is not None:
        raise ValueError(
            f"n_envs = {n_envs} applies when env is an id; the environment given has its own"
        )
    if env is not None:
        check_space(env.observation_space, "observation")
        check_action_space(env.action_space)
    return env


def make_vec_env(
    env_id: str,
    n_envs: int,
    seed: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
    wrapper_class: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None = None,
) -> VecEnv:
    """`n_envs` environments of one id, ready for an SB3 algorithm and watched by `VecMonitor`.

    The native vector form is used if the id has one that resets within the step, and there is no
    `wrapper_class`; otherwise one single environment after another. MiniGrid environments whose
    observations still contain the mission's text after wrapping become a `MiniGridTask`.

    `env_id` may name the module that registers it: "module:id". Environment i is seeded with
    `seed` + i at the first reset.

    Raises: ValueError for an unknown id, with the nearest known ones, or `n_envs` below 1.
    """
    if n_envs < 1:
        raise ValueError(f"n_envs = {n_envs} is below 1; use 1 or more")
    spec = _find_spec(env_id)
    kwargs = env_kwargs or {}

    vec_env: VecEnv | None = None
    if spec.vector_entry_point is not None and wrapper_class is None:
        native = gym.make_vec(
            spec, num_envs=n_envs, vectorization_mode="vector_entry_point", **kwargs
        )
        if native.metadata.get("autoreset_mode") is AutoresetMode.SAME_STEP:
            vec_env = GymnasiumVecEnv(native)
        else:
            native.close()
    if vec_env is None:
        vec_env = DummyVecEnv([lambda: _make_single(spec, kwargs, wrapper_class)] * n_envs)
    vec_env = VecMonitor(vec_env)
    if seed is not None:
        vec_env.seed(seed)
    return vec_env


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


def _find_spec(env_id: str) -> EnvSpec:
    module, _, name = env_id.rpartition(":")
    if not module and name.startswith("MiniGrid-"):
        module = "minigrid"
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"env_id = {env_id!r} is of a module that cannot be imported: {error}; install it, "
                "or set PYTHONPATH to the folder it lies in"
            ) from error
    spec = gym.registry.get(name)
    if spec is None:
        own = [i for i, s in gym.registry.items() if module and _is_of(s, module)]
        near = difflib.get_close_matches(name, own or gym.registry, n=3) or own
        raise ValueError(
            f"env_id = {env_id!r} is not registered; "
            + (f"near it: {', '.join(near)}. " if near else "nothing is near it. ")
            + "gymnasium.pprint_registry() lists what is. An environment of a package not imported "
            "yet needs its module in the id, as in 'expire_span.envs:ExpireSpan/Corridor-v0'"
        )
    return spec


def _is_of(spec: EnvSpec, module: str) -> bool:
    """Whether the class of an environment lies in a module."""
    entry = spec.entry_point
    lies_in = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
    return lies_in.startswith(module)


def _make_single(
    spec: EnvSpec,
    kwargs: dict[str, Any],
    wrapper_class: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None,
) -> gym.Env[Any, Any]:
    env = gym.make(spec, **kwargs)
    if wrapper_class is not None:
        env = wrapper_class(env)
    space = env.observation_space
    if isinstance(space, gym.spaces.Dict) and {"image", "mission"} <= space.keys():
        if space["mission"].dtype == np.dtype(str):  # text, which SB3 cannot take
            env = MiniGridTask(env)
    return env

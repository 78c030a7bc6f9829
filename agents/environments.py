"""Environments by their ids, and what of them an agent with memory can play."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecTransposeImage,
)

from .spaces import check_action_space, check_space
from .vec_env import GymnasiumVecEnv, Info

Playable = GymEnv | VectorEnv[Any, Any, Any] | str
"""What an agent takes as its environments: SB3's kinds, gymnasium's vector environments, an id."""

DEFAULT_N_ENVS = 16
"""Environments made for an agent that is given an id and no number."""


class Copyable(VecEnvWrapper):
    """A wrapper of SB3's of which copies can be made and files written, and so of an agent with it:
    what it looks up names by cannot be pickled, and is made anew."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: part for name, part in vars(self).items() if name != "class_attributes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.class_attributes = dict(inspect.getmembers(type(self)))


class CopyableMonitor(Copyable, VecMonitor):
    """SB3's `VecMonitor`. A copy writes to no file of results."""

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"results_writer": None}


class CopyableTranspose(Copyable, VecTransposeImage):
    """SB3's `VecTransposeImage`, which it wraps environments in that show pictures."""


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


def playable_env(env: Playable | None, n_envs: int | None, seed: int | None) -> GymEnv | None:
    """The environments of an id, or those given, if an agent with memory can play them. A vector
    environment of gymnasium's is taken as `GymnasiumVecEnv`."""
    if isinstance(env, VectorEnv):
        env = CopyableMonitor(GymnasiumVecEnv(env))
    if isinstance(env, str):
        env = make_vec_env(env, DEFAULT_N_ENVS if n_envs is None else n_envs, seed=seed)
    elif n_envs is not None and env is not None:
        raise ValueError(
            f"n_envs = {n_envs} applies when env is an id; the environment given has its own"
        )
    if env is not None:
        if not isinstance(env, gym.Env | VecEnv):
            raise TypeError(
                f"env = {env!r} is no environment; give an id, as 'CartPole-v1', a gymnasium.Env "
                "that was made (the object, not its class), or a vector environment"
            )
        check_space(env.observation_space)
        check_action_space(env.action_space)
    return env


def playable_vec_env(env: Playable, n_envs: int) -> VecEnv:
    """As `playable_env`, of an id `n_envs`; a single environment as a vector of one."""
    playable = playable_env(env, n_envs if isinstance(env, str) else None, None)
    if playable is None:
        raise TypeError("env = None is no environment; give one, as model.get_env()")
    return playable if isinstance(playable, VecEnv) else DummyVecEnv([lambda: playable])


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

    Raises: ValueError for an unknown id, with the nearest known ones, `n_envs` that is no whole
    number from 1, or observations that an agent cannot read; TypeError for what is no id.
    """
    if not isinstance(env_id, str):
        raise TypeError(
            f"env_id = {env_id!r} is no id; give one, as 'CartPole-v1'. A class has one once "
            "gymnasium.register(id='My-v0', entry_point=MyEnv) gave it one; "
            "stable_baselines3.common.env_util.make_vec_env takes the class itself"
        )
    if not isinstance(n_envs, int | np.integer):
        raise ValueError(f"n_envs = {n_envs!r} is no whole number; use an int, 1 or more")
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
    vec_env = CopyableMonitor(vec_env)
    if seed is not None:
        vec_env.seed(seed)
    return vec_env


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
        except SystemExit:
            raise ValueError(
                f"env_id = {env_id!r} is of a module that ends the process when it is imported; "
                'guard what it runs with if __name__ == "__main__"'
            ) from None
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
    check_space(env.observation_space)  # before SB3's DummyVecEnv, which raises a bare TypeError
    return env

"""Errors that stop training or loading, each with the value, the bound and the way out."""

from __future__ import annotations

import difflib
import inspect
import json
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from .advantage_scale import LEAST_SHARE, SolvedSign

LARGEST_WEIGHT = 1e12
"""Weights beyond it have diverged: sums of their products overflow single precision."""

LARGEST_OBSERVATION = 1e15
"""Observations beyond it are not read: sums of their squares, in the layers that normalise, come
near the largest number of single precision, 3.4e38."""

DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(RuntimeError, ValueError, LookupError, ArithmeticError),
)
"""What reading a damaged zip file raises, by what is damaged."""

CHECKPOINT_FORMAT = 13
"""Raised whenever what an agent saves changes, so that an older file is refused and not misread."""


class NonFiniteError(ValueError):
    """An observation, a reward or a loss is NaN or infinite."""


class DivergedError(NonFiniteError):
    """The weights themselves are lost, or what they say of values is."""


class CheckpointError(ValueError):
    """A file is not a checkpoint this class can load."""


BOUNDS: dict[str, tuple[float, float]] = {
    "n_steps": (1, math.inf),
    "gamma": (0, 1),
    "gae_lambda": (0, 1),
    "ent_coef": (0, math.inf),
    "vf_coef": (0, math.inf),
    "prediction_coef": (0, math.inf),
}
"""Least and greatest value of options that are otherwise unchecked."""


def check_bounds(agent: Any) -> None:
    """Raise ValueError for the first of an agent's numbers that is out of bounds."""
    for name in ("n_steps", "n_epochs", "batch_size"):
        count = getattr(agent, name, None)
        if count is not None and not isinstance(count, int | np.integer):
            raise ValueError(f"{name} = {count!r} is no whole number; use an int, 1 or more")
    for name, (least, greatest) in BOUNDS.items():
        value = getattr(agent, name)
        if not (least <= value <= greatest and math.isfinite(value)):
            upwards = "or more" if greatest == math.inf else f"to {greatest}"
            if not math.isfinite(value):
                upwards += ", a finite number"
            raise ValueError(f"{name} = {value} is out of bounds; use {least} {upwards}")
    bound = agent.max_grad_norm
    if not bound > 0:
        raise ValueError(f"max_grad_norm = {bound} must be above 0; float('inf') for no bound")


def check_seed(seed: int | np.integer[Any] | None) -> int | None:
    """The seed as Python's own integer. Raises ValueError for what no generator of random numbers
    takes."""
    if seed is None:
        return None
    if not (isinstance(seed, int | np.integer) and 0 <= seed < 2**32):
        raise ValueError(
            f"seed = {seed!r} is out of bounds; use a whole number, 0 to {2**32 - 1}, or None"
        )
    return int(seed)


def check_sb3_options(agent: Any) -> None:
    """Raise ValueError for options that SB3 takes at any value, and some of which do nothing."""
    if agent._stats_window_size < 1:
        raise ValueError(
            f"stats_window_size = {agent._stats_window_size} is below 1, and no episode is "
            "counted; use 1 or more"
        )
    if agent.use_sde and agent.sde_sample_freq != -1 and not agent.sde_sample_freq >= 1:
        raise ValueError(
            f"sde_sample_freq = {agent.sde_sample_freq} is no number of steps; use 1 or more, or "
            "-1 to draw the noise once per rollout"
        )
    net_arch = agent.policy_kwargs.get("net_arch") or []
    if isinstance(net_arch, list) and net_arch and isinstance(net_arch[0], dict):
        net_arch = net_arch[0]  # as SB3 takes it, with a warning
    layers = net_arch.values() if isinstance(net_arch, dict) else [net_arch]
    if any(units < 1 for part in layers for units in part):
        raise ValueError(f"net_arch = {net_arch} has a layer below 1 unit; use 1 or more")
    if "activation_fn" in agent.policy_kwargs and not any(layers):
        raise ValueError(
            f"activation_fn = {agent.policy_kwargs['activation_fn']} is for layers of net_arch, "
            "which has none; give net_arch, as [64], or leave it out"
        )


def check_advantage_options(
    scale_ent_coef: bool, min_lr_share: float, solved_by: str, normalize_advantage: bool
) -> None:
    """Raise ValueError for what does not go with advantages left as they are."""
    if solved_by not in get_args(SolvedSign):
        known = ", ".join(get_args(SolvedSign))
        raise ValueError(f"solved_by = {solved_by!r} is unknown; known: {known}")
    if not 0 < min_lr_share <= 1:
        raise ValueError(
            f"min_lr_share = {min_lr_share} must be above 0 and at most 1, which leaves the "
            "learning rate to its schedule"
        )
    if normalize_advantage:
        return
    if scale_ent_coef:
        raise ValueError(
            "scale_ent_coef = True needs normalize_advantage = True: advantages that are not "
            "normalised shrink by themselves while ent_coef stays; leave one of the two out"
        )
    shortened = (("min_lr_share", min_lr_share, LEAST_SHARE), ("solved_by", solved_by, "returns"))
    for name, value, default in shortened:
        if value != default:
            raise ValueError(
                f"{name} = {value!r} needs normalize_advantage = True: without it the learning "
                f"rate is the schedule's already; leave {name} out"
            )


def check_changes_on_load(kind: type[Any], changes: Iterable[str]) -> None:
    """Raise TypeError for what is no option of the class to be loaded, and ValueError for options
    that `load` cannot change."""
    takers: list[Any] = [cls for cls in kind.__mro__ if issubclass(cls, BaseAlgorithm)]
    takers.append(BaseAlgorithm.load)
    options = {name for taker in takers for name in inspect.signature(taker).parameters}
    for name in changes:
        if name not in options:
            near = difflib.get_close_matches(name, options, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"load got {name}, which is no option of {kind.__name__}{hint}")
    if fixed := sorted({"memory", "memory_kwargs", "prediction_coef"} & set(changes)):
        raise ValueError(
            f"load cannot change {', '.join(fixed)}: the network was made with it. Leave it out, "
            "or make a new agent and train it"
        )


def check_finite_rewards(rewards: np.ndarray, n_steps: int) -> None:
    """Raise NonFiniteError naming step and environment unless all rewards are finite."""
    if not np.isfinite(rewards).all():
        env = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise NonFiniteError(
            f"reward = {rewards[env]} of environment {env} at step {n_steps} is not finite; mend "
            "the environment's reward, or bound it with gymnasium.wrappers.TransformReward"
        )


def check_finite_observations(
    obs: np.ndarray | dict[str, np.ndarray] | Any,
    n_steps: int | None,
    envs: Sequence[int] | None = None,
) -> None:
    """Raise NonFiniteError naming step and environment unless all observations are finite, and of
    a size whose square is.

    `envs` are the environments the rows belong to, if not all in order; without a step they are
    said to be given to `predict`.
    """
    for name, part in obs.items() if isinstance(obs, dict) else (("", obs),):
        if not np.issubdtype(part.dtype, np.floating):
            continue
        wrong = ~(np.abs(part) < LARGEST_OBSERVATION)
        if wrong.any():
            is_large = np.isfinite(part[wrong][0])
            lack = f"is beyond {LARGEST_OBSERVATION:g}" if is_large else "is not finite"
            raise NonFiniteError(
                f"{_first(name, part, wrong, n_steps, envs)} {lack}; mend the environment, or "
                "replace such values with gymnasium.wrappers.TransformObservation"
            )


def check_observations(
    space: spaces.Space[Any], obs: Any, n_steps: int | None, envs: Sequence[int] | None = None
) -> None:
    """As `check_finite_observations`, and raise ValueError, naming as much, for a number that a
    discrete space does not count to: the one-hot code has no place for it."""
    check_finite_observations(obs, n_steps, envs)
    for name, part in obs.items() if isinstance(obs, dict) else (("", obs),):
        kind: Any = space[name] if isinstance(space, spaces.Dict) else space
        if not isinstance(kind, spaces.Discrete | spaces.MultiDiscrete):
            continue
        n = np.broadcast_to(kind.n if isinstance(kind, spaces.Discrete) else kind.nvec, part.shape)
        beyond = (part < 0) | (part >= n)
        if beyond.any():
            raise ValueError(
                f"{_first(name, part, beyond, n_steps, envs)} is beyond the 0 to {n[beyond][0] - 1}"
                f" of {kind}; mend the environment, or declare a larger space"
            )


def _first(
    name: str, part: np.ndarray, wrong: np.ndarray, n_steps: int | None, envs: Sequence[int] | None
) -> str:
    """The first wrong entry of the observations, by its place."""
    row, *place = (int(i) for i in np.argwhere(wrong)[0])
    return (
        f"observation {name + ' ' if name else ''}entry {tuple(place)} = {part[(row, *place)]} of "
        f"environment {row if envs is None else envs[row]} "
        + ("given to predict" if n_steps is None else f"at step {n_steps}")
    )


def check_finite_gradient(
    norm: torch.Tensor,
    loss: torch.Tensor,
    n_steps: int,
    learning_rate: float,
    max_grad_norm: float,
) -> None:
    """Raise NonFiniteError if the gradient is not finite, before it reaches the weights."""
    if not torch.isfinite(norm):
        raise NonFiniteError(
            f"the gradient's norm is {float(norm)} (loss {loss.item()}) at step {n_steps}; lower "
            f"learning_rate = {learning_rate} or max_grad_norm = {max_grad_norm}"
        )


def check_weights(policy: torch.nn.Module, n_steps: int) -> None:
    """Raise DivergedError if the weights have diverged, so far that no output is finite."""
    for weights in policy.parameters():
        largest = weights.detach().abs().max().item() if weights.numel() else 0.0
        if not largest < LARGEST_WEIGHT:
            raise DivergedError(
                f"the weights have diverged: the largest is {largest} at step {n_steps}; lower "
                "learning_rate or max_grad_norm"
            )


def check_said(values: torch.Tensor, log_probs: torch.Tensor, n_steps: int) -> None:
    """Raise DivergedError unless values are of a size that can be and actions have a probability:
    weights that are finite may yet be beyond use. Shapes: (..., B)."""
    for name, said in (("value", values), ("log-probability", log_probs)):
        lost = ~(said.abs() < LARGEST_WEIGHT)
        if lost.any():
            place = tuple(lost.nonzero()[0].tolist())
            raise DivergedError(
                f"the policy has diverged: the {name} of environment {place[-1]} is "
                f"{float(said[place]):g} at step {n_steps}; lower learning_rate or max_grad_norm"
            )


def check_outputs(policy: Any, obs: Any, state: Any, starts_B: torch.Tensor, n_steps: int) -> None:
    """Raise DivergedError if what a policy says of observations, and of the likeliest actions, is
    of no use. Draws no random number."""
    values_B = policy.values_of(obs, state, starts_B)
    try:
        distribution, _ = policy.get_distribution(obs, state, starts_B)
        log_prob_B = distribution.log_prob(distribution.mode())
    except ValueError:  # torch's, for logits that are not finite or a deviation of 0
        log_prob_B = torch.full_like(values_B, torch.nan)
    check_said(values_B, log_prob_B, n_steps)


def check_return_size(returns: np.ndarray, rewards: np.ndarray, n_steps: int) -> None:
    """Raise DivergedError if a rollout's returns, which values are part of, are of no size that can
    be: before anything is learned from them, or an agent saved that gave them."""
    size = float(np.sqrt(np.square(returns, dtype=np.float64).mean()))
    if not size < LARGEST_WEIGHT:
        raise DivergedError(
            f"the values have diverged: returns are of size {size:g} at step {n_steps}, above "
            f"{LARGEST_WEIGHT:g}; the largest reward is {np.abs(rewards).max():g}: if that is no "
            "reward the environment should give, mend it, otherwise scale rewards, or lower "
            "learning_rate, gamma or max_grad_norm"
        )


def check_checkpoint(path: Any, algorithm: str) -> None:
    """Raise CheckpointError unless `path` is a whole zip file that this `algorithm` saved. An open
    file is at its beginning afterwards."""
    file: Any = path  # or an open one
    if isinstance(path, str | Path):
        file = Path(path)
        if not file.exists() and not file.suffix:
            file = file.with_suffix(".zip")
        if not file.exists():
            raise FileNotFoundError(f"there is no checkpoint {file}; train one or correct the path")
    advice = f"load a file written by {algorithm}.save"
    data = _read_data(file, advice)
    if file is path:
        path.seek(0)
    saved_by, saved_format = data.get("saved_by"), data.get("checkpoint_format")
    if saved_by is None:
        raise CheckpointError(f"{file} holds an agent of another kind, without memory; {advice}")
    if saved_by != algorithm:
        raise CheckpointError(
            f"{file} was saved by {saved_by} and cannot be loaded by {algorithm}; use "
            f"{saved_by}.load, or {advice}"
        )
    if saved_format != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{file} has checkpoint_format = {saved_format}, this version of expire-span reads "
            f"{CHECKPOINT_FORMAT}; load it with the version that saved it, or train anew"
        )


def _read_data(file: Any, advice: str) -> dict[str, Any]:
    """What an SB3 algorithm's file says of the agent. Raises CheckpointError for other files."""
    if not zipfile.is_zipfile(file):
        raise CheckpointError(f"{file} is corrupt or no checkpoint: it is not a zip file; {advice}")
    try:
        with zipfile.ZipFile(file) as archive:
            broken, names = archive.testzip(), set(archive.namelist())
            content = archive.read("data") if broken is None and "data" in names else b""
    except DAMAGED as error:
        raise CheckpointError(f"{file} is corrupt: {error!r}; {advice}") from error
    if broken is not None:
        raise CheckpointError(f"{file} is corrupt: its part {broken!r} is damaged; {advice}")
    missing = {"data", "policy.pth", "policy.optimizer.pth"} - names
    if missing:
        raise CheckpointError(
            f"{file} is no checkpoint of an SB3 algorithm: {', '.join(sorted(missing))} is "
            f"missing; {advice}"
        )
    try:
        data = json.loads(content)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise CheckpointError(
            f"{file} is no checkpoint of an SB3 algorithm: its part 'data' is no JSON object; "
            f"{advice}"
        )
    return data

"""Errors that stop training or loading, each with the value, the bound and the way out."""

from __future__ import annotations

import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

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
        # a half-precision number is never so large, and has no such bound to compare with
        largest = min(LARGEST_OBSERVATION, float(np.finfo(part.dtype).max))
        wrong = ~(np.abs(part) <= largest)
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
    be: before anything is learned from them, or an agent saved that gave them. If a reward alone is
    as large, the agent is not to blame: NonFiniteError."""
    size = float(np.sqrt(np.square(returns, dtype=np.float64).mean()))
    if size < LARGEST_WEIGHT:
        return
    found = f"returns are of size {size:g} at step {n_steps}, above {LARGEST_WEIGHT:g}"
    largest = float(np.abs(rewards).max())
    if largest >= LARGEST_WEIGHT:
        raise NonFiniteError(
            f"{found}; the largest reward is {largest:g}: mend the environment's reward, or bound "
            "it with gymnasium.wrappers.TransformReward"
        )
    raise DivergedError(
        f"the values have diverged: {found}; the largest reward is {largest:g}: scale rewards, or "
        "lower learning_rate, gamma or max_grad_norm"
    )


def check_checkpoint(path: Any, algorithm: str) -> dict[str, Any]:
    """What a file says of the agent, as SB3 writes it in JSON. An open file is at its beginning
    afterwards. Raises CheckpointError unless `path` is a whole zip file that this `algorithm`
    saved."""
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
    return data


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

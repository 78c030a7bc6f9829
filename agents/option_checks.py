"""Options of an agent that cannot be, each refused with the value, the bound and the way out."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, get_args

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import Schedule

from .advantage_scale import LEAST_SHARE, SolvedSign

BOUNDS: dict[str, tuple[float, float]] = {
    "n_steps": (1, math.inf),
    "gamma": (0, 1),
    "gae_lambda": (0, 1),
    "ent_coef": (0, math.inf),
    "vf_coef": (0, math.inf),
    "prediction_coef": (0, math.inf),
}
"""Least and greatest value of options that are otherwise unchecked."""

FIXED = {"memory", "memory_kwargs", "prediction_coef", "use_rms_prop", "rms_prop_eps"}
"""Options that are used when an agent is made, and never again."""


def check_bounds(agent: Any) -> None:
    """Raise ValueError for the first of an agent's numbers that is out of bounds."""
    for name in ("n_steps", "n_epochs", "batch_size"):
        count = getattr(agent, name, None)
        if count is not None and not isinstance(count, int | np.integer):
            raise ValueError(f"{name} = {count!r} is no whole number; use an int, 1 or more")
    for name, (least, greatest) in BOUNDS.items():
        value = getattr(agent, name)
        upwards = "or more" if greatest == math.inf else f"to {greatest}"
        check_number(name, value, f"{least} {upwards}")
        if not (least <= value <= greatest and math.isfinite(value)):
            if not math.isfinite(value):
                upwards += ", a finite number"
            raise ValueError(f"{name} = {value} is out of bounds; use {least} {upwards}")
    bound = agent.max_grad_norm
    check_number("max_grad_norm", bound, "float('inf') for no bound")
    if not bound > 0:
        raise ValueError(f"max_grad_norm = {bound} must be above 0; float('inf') for no bound")


def check_number(name: str, value: Any, instead: str) -> None:
    """Raise ValueError for what is no number, and say what to use `instead`."""
    if not isinstance(value, Real):
        reason = ", and not one of the options that may be functions" if callable(value) else ""
        raise ValueError(f"{name} = {value!r} is no number{reason}; use {instead}")


def scheduled(name: str, schedule: Schedule, progress_remaining: float) -> float:
    """What a schedule says now. Raises ValueError for less than 0, or NaN."""
    value = float(schedule(progress_remaining))
    if not value >= 0:
        raise ValueError(
            f"{name} = {value} where progress_remaining = {progress_remaining:g}; let the schedule "
            "return 0 or more, all the way from 1 to 0"
        )
    return value


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


def check_changes_on_load(
    kind: type[Any], options_given: Iterable[str], changes: Iterable[str]
) -> None:
    """Raise TypeError for what is given as an option of the class to be loaded and is none, and
    ValueError for changes that `load` cannot make."""
    takers: list[Any] = [cls for cls in kind.__mro__ if issubclass(cls, BaseAlgorithm)]
    takers.append(BaseAlgorithm.load)
    options = {name for taker in takers for name in inspect.signature(taker).parameters}
    for name in options_given:
        if name not in options:
            near = difflib.get_close_matches(name, options, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"load got {name}, which is no option of {kind.__name__}{hint}")
    if fixed := sorted(FIXED.intersection(changes)):
        raise ValueError(
            f"load cannot change {', '.join(fixed)}: the network or its optimizer was made with "
            "it. Leave it out, or make a new agent and train it"
        )

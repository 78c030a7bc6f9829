"""The spaces of observations and actions that an agent can play in: those that SB3's PPO takes.

What SB3 would take and then get wrong is refused as well: discrete spaces that do not count from 0,
since the policy's network numbers its inputs and actions from 0, and those of several dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

SUPPORTED_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""Kinds of actions, and of observations alone or in a Dict."""

SUPPORTED = ", ".join(kind.__name__ for kind in SUPPORTED_SPACES)


def parts_of(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The parts of an observation by name; "observation" for one that is no Dict."""
    return dict(space) if isinstance(space, spaces.Dict) else {"observation": space}


def check_space(space: spaces.Space[Any]) -> None:
    """Raise ValueError, with the way out, for observations that an agent cannot read."""
    for name, part in parts_of(space).items():
        named = f"observation {name!r}"
        if not isinstance(name, str) or not name:
            raise ValueError(f"{named} has no name; give the parts of a Dict names, as 'position'")
        if not isinstance(part, SUPPORTED_SPACES):
            advice = "wrap the environment so that it is one of these"
            if name == "mission" or "Mission" in type(part).__name__:
                advice = (
                    "wrap the environment in minigrid.wrappers.ImgObsWrapper, which drops the text"
                )
            raise ValueError(
                f"{named} is a {type(part).__name__} space, which is not supported; supported: "
                f"{SUPPORTED} and a Dict of these; {advice}"
            )
        if isinstance(part, spaces.Box) and not part.shape:
            raise ValueError(
                f"{named} is {part}, a number without an axis; give it one, as in np.array([x]), "
                "with a gymnasium wrapper"
            )
        _check_numbering(part, named)


def check_action_space(space: spaces.Space[Any]) -> None:
    """Raise ValueError, with the way out, for actions that an agent cannot take."""
    if not isinstance(space, SUPPORTED_SPACES):
        raise ValueError(
            f"the action space is a {type(space).__name__}, which is not supported; supported: "
            f"{SUPPORTED}; put its parts into one of these with a gymnasium wrapper"
        )
    if isinstance(space, spaces.Box) and not (space.is_bounded() and space.shape):
        raise ValueError(
            f"the action space is {space}, which must have finite bounds and at least one axis; "
            "gymnasium.wrappers.TransformAction gives it others"
        )
    if isinstance(space, spaces.MultiBinary) and len(space.shape) != 1:
        raise ValueError(
            f"the action space is {space}, of {len(space.shape)} dimensions; flatten it to one"
        )
    _check_numbering(space, "the action space")


def _check_numbering(space: spaces.Space[Any], name: str) -> None:
    """Raise ValueError unless a discrete space counts from 0, in one row."""
    start = getattr(space, "start", 0)
    if np.any(start):
        raise ValueError(
            f"{name} is {space}, whose start = {start} is not supported: shift it to 0 with a "
            "gymnasium wrapper"
        )
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim != 1:
        raise ValueError(
            f"{name} is {space}, a MultiDiscrete of {space.nvec.ndim} dimensions; flatten it to one"
        )

"""The policy by SB3's names, which scripts for its algorithms give."""

from __future__ import annotations

from typing import Any

from torch import nn

from .policy import MemoryActorCriticPolicy

POLICY_ALIASES: dict[str, type[nn.Module]] = {
    "MlpPolicy": MemoryActorCriticPolicy,
    "CnnPolicy": MemoryActorCriticPolicy,
    "MultiInputPolicy": MemoryActorCriticPolicy,
}
"""SB3's names. One class serves all three: `ObservationExtractor` goes by the space."""


def policy_class(policy: str | type[MemoryActorCriticPolicy]) -> type[Any]:
    """The class of a policy's name, for SB3 takes "MlpPolicy" for one that reads no Dict.

    Raises ValueError for a name that there is not, as those of sb3-contrib's `RecurrentPPO`, and
    TypeError for a class without memory, as SB3's own.
    """
    if not isinstance(policy, str):
        if not (isinstance(policy, type) and issubclass(policy, MemoryActorCriticPolicy)):
            raise TypeError(
                f"policy = {policy!r} has no memory; use 'MlpPolicy', or a class of your own that "
                "is derived from MemoryActorCriticPolicy"
            )
        return policy
    if policy not in POLICY_ALIASES:
        raise ValueError(
            f"policy = {policy!r} is unknown; known: {', '.join(POLICY_ALIASES)}, which are the "
            "same. Its memory is chosen by memory=, as in memory='lstm'"
        )
    return POLICY_ALIASES[policy]

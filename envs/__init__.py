"""The paper's tasks as gymnasium environments; importing this package registers them.

gymnasium 1.x loads no plug-ins: import this package, or write the module into the id, as in
`gym.make("expire_span.envs:ExpireSpan/Corridor-v0")`. With `gym.make_vec` the same id gives the
natively vectorised form, which plays the same game without a Python loop over environments.

`ENVIRONMENTS` is the one table of ids and arguments. Tests run over it: an environment added here
is tested by being here. Default arguments stand in the environment's class, never in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium


@dataclass(frozen=True)
class Registration:
    """What is registered under one id. Entry points are "module:name", imported when first used."""

    entry_point: str
    """The single form, which renders. Its docstring documents the environment. Its
    `OPTIMAL_RETURN` and `RETURN_WITHOUT_MEMORY` are what a policy can expect per episode."""

    vector_entry_point: str
    """The vector form, which plays exactly the episodes of the single one."""

    oracle: str
    """The scripted policy that earns `OPTIMAL_RETURN`."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of both forms that differ from the defaults of the class."""


LONG_INSTRUCTION: Mapping[str, Any] = {
    "n_characters": 8,
    "n_rooms": 8,
    "walk_rate": 0.03,
    "move_rate": 0.03,
    "ask_rate": 0.02,
    "max_steps": 8_000,
}

HEAVY_INSTRUCTION: Mapping[str, Any] = {
    "n_characters": 12,
    "n_rooms": 20,
    "walk_rate": 0.008,
    "move_rate": 0.008,
    "ask_rate": 0.005,
    "max_steps": 80_000,
}

ENVIRONMENTS: dict[str, Registration] = {
    "ExpireSpan/Corridor-v0": Registration(
        entry_point="expire_span.envs.corridor:CorridorEnv",
        vector_entry_point="expire_span.envs.corridor_vector:CorridorVectorEnv",
        oracle="expire_span.envs.oracles:CorridorOracle",
    ),
    **{
        f"ExpireSpan/Portal{suffix}-v0": Registration(
            entry_point="expire_span.envs.portal:PortalEnv",
            vector_entry_point="expire_span.envs.portal_vector:PortalVectorEnv",
            oracle="expire_span.envs.oracles:PortalOracle",
            arguments=arguments,
        )
        for suffix, arguments in (
            ("", {}),
            ("-3", {"n_rooms": 3}),
            ("-5", {"n_rooms": 5}),
            ("-10", {"n_rooms": 10}),
        )
    },
    "ExpireSpan/Collision-v0": Registration(
        entry_point="expire_span.envs.collision:CollisionEnv",
        vector_entry_point="expire_span.envs.collision_vector:CollisionVectorEnv",
        oracle="expire_span.envs.oracles:CollisionOracle",
    ),
    **{
        f"ExpireSpan/Instruction{suffix}-v0": Registration(
            entry_point="expire_span.envs.instruction:InstructionEnv",
            vector_entry_point="expire_span.envs.instruction_vector:InstructionVectorEnv",
            oracle="expire_span.envs.instruction_oracle:InstructionOracle",
            arguments=arguments,
        )
        for suffix, arguments in (
            ("", {}),
            ("-short", {}),
            ("-long", LONG_INSTRUCTION),
            ("-heavy", HEAVY_INSTRUCTION),
        )
    },
}

for _id, _registration in ENVIRONMENTS.items():
    # Without max_episode_steps: the limit depends on the episode and is part of the game.
    gymnasium.register(
        id=_id,
        entry_point=_registration.entry_point,
        vector_entry_point=_registration.vector_entry_point,
        kwargs=dict(_registration.arguments),
    )

"""Tuned defaults by environment and algorithm, as data. All tuned numbers stand here.

A preset names only what differs from the defaults of the dataclasses in `config` and `memory`.
Its name is given by --preset; without one, the preset that lists the environment is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Options = Mapping[str, Any]


@dataclass(frozen=True)
class AlgorithmPreset:
    """Values for one algorithm; field names as in the dataclasses, values as in Python."""

    run: Options = field(default_factory=dict)
    """Fields of `TrainConfig`."""
    hyper_parameters: Options = field(default_factory=dict)
    """Fields of the algorithm's options."""
    memories: Mapping[str, Options] = field(default_factory=dict)
    """Options of each memory, by its name."""


@dataclass(frozen=True)
class Preset:
    """A set of values for every algorithm it has been tuned for."""

    environments: tuple[str, ...] = ()
    """Ids, without module, for which it is taken automatically."""
    algorithms: Mapping[str, AlgorithmPreset] = field(default_factory=dict)
    """Values by algorithm; an algorithm that is missing has the library's defaults."""


FULL_STEPS: Options = {"solved_by": "advantages", "kl_coef": 0.0}
"""Without the agent's other ways to stay with what is solved: the presets' learning rate falls to 0
in the end, and until then full steps learn sooner to take the right action nearly always."""

PORTAL_MEMORIES: dict[str, Options] = {
    "expire-span": {"max_span": 512.0, "ramp": 16.0, "initial_span": 0.5},
    "transformer-xl": {"window": 128},
    "adaptive-span": {"max_span": 512.0, "ramp": 16.0, "initial_span": 0.5},
}

CORRIDOR_MEMORIES: dict[str, Options] = {
    "expire-span": {"max_span": 512.0, "ramp": 16.0, "initial_span": 0.5},
    "transformer-xl": {"window": 200},
    "adaptive-span": {"max_span": 512.0, "ramp": 16.0, "initial_span": 0.5},
}


LONG_CORRIDOR = AlgorithmPreset(
    run={
        "env_kwargs": {"max_length": 10_000},
        "total_timesteps": 4_997_120,  # 305 rollouts
        "n_envs": 64,
        "curriculum": tuple({"max_length": n} for n in (200, 400, 800, 1600, 3200, 6400)),
        "curriculum_success": 0.98,
        "eval_episodes": 100,
        "eval_env_kwargs": {"min_length": 10_000},
    },
    hyper_parameters={
        **FULL_STEPS,
        "learning_rate": 1e-3,
        "learning_rate_schedule": "linear",
        "adam_eps": 1e-4,  # with 1e-5 the stage of 3,200 cells took twice as long
        "n_steps": 256,  # the longer the corridors, the fewer decisions in a step
        "n_epochs": 4,
        "ent_coef": 0.003,
    },
    # spans begin at 328 steps; each stage makes those of the cues twice as long as it needs
    memories={"expire-span": {"max_span": 32_768.0, "ramp": 16.0, "initial_span": 0.01}},
)
"""Corridors of up to 10,000 cells, by --preset corridor-10000; evaluated in the longest alone."""


def easier_first(stages: tuple[Options, ...], steps: int) -> Options:
    """Fields of a run with easier stages. One ends when 90 % of its episodes succeed, or after
    `steps`, about twice what expire-span needs: a memory that cannot master it is to be judged by
    what it learns in the task itself."""
    if not stages:
        return {}
    return {"curriculum": stages, "curriculum_success": 0.9, "curriculum_steps": steps}


def portal(
    total_timesteps: int, *n_rooms: int, **hyper_parameters: Any
) -> Mapping[str, AlgorithmPreset]:
    """PPO on Portal, with shorter chains of `n_rooms` first."""
    return {
        "ppo": AlgorithmPreset(
            run={
                "total_timesteps": total_timesteps,
                "n_envs": 64,
                **easier_first(tuple({"n_rooms": n} for n in n_rooms), 2_000_000),
            },
            hyper_parameters={
                **FULL_STEPS,
                "learning_rate": 1e-3,
                "learning_rate_schedule": "stable-decay",
                "n_steps": 128,
                "batch_size": 1024,
                "n_epochs": 4,
                "target_kl": 0.03,
                "ent_coef": 0.01,
                "scale_ent_coef": True,  # else entropy rises while 10 rooms are learned
                # rewards alone teach an agent to avoid locked doors, and hardly to use open ones
                "prediction_coef": 2.0,
                **hyper_parameters,
            },
            memories=PORTAL_MEMORIES,
        )
    }


DENSE_VILLAGE: Options = {"n_rooms": 2, "ask_rate": 0.3, "walk_rate": 0.2, "max_open": 6}
"""Instruction with short ways and many instructions, cut off early."""

INSTRUCTION_LEARNING: Options = {
    **FULL_STEPS,
    "learning_rate": 1e-3,
    "learning_rate_schedule": "stable-decay",
    "n_steps": 128,
    "batch_size": 1024,
    "n_epochs": 4,
    "gamma": 0.0,  # a message is paid for at once
    "gae_lambda": 0.0,
    "target_kl": 0.05,
    "ent_coef": 0.003,
    "scale_ent_coef": True,
    "use_by": "influence",
}

INSTRUCTION = AlgorithmPreset(
    run={
        "total_timesteps": 5_996_544,  # 732 rollouts
        "n_envs": 64,
        # groups of names first, in which a guess is right one time in two: from the start at the
        # full price of false messages, an agent learns to say nothing. To the end, more than the
        # full price: an agent that delivers nearly all learns to say nothing where it is not sure
        "curriculum": (
            {**DENSE_VILLAGE, "max_steps": 400, "false_reward": -0.05, "group_size": 3},
            {**DENSE_VILLAGE, "max_steps": 150, "false_reward": -0.02},
            {**DENSE_VILLAGE, "max_steps": 150, "false_reward": -0.1},
            {"max_steps": 400, "false_reward": -0.2},
            {"max_steps": 400},
            {"max_steps": 400, "false_reward": -1.0},
            {"max_steps": 400, "false_reward": -2.0},
        ),
        "curriculum_steps": (*(500_000,) * 4, 1_000_000, 1_000_000, 2_000_000),
        "curriculum_success": 0.99,
    },
    hyper_parameters={**INSTRUCTION_LEARNING, "target_live": 22.0},
    memories={"expire-span": {"max_span": 256.0, "ramp": 16.0, "initial_span": 0.5}},
)


def village(n_rooms: int, ask: float, walk: float, move: float, **arguments: Any) -> Options:
    """A stage of Instruction: the more rooms and the lower the rates, the longer the way."""
    rates = {"ask_rate": ask, "walk_rate": walk, "move_rate": move}
    return {"n_rooms": n_rooms, **rates, **arguments}


BUSY_VILLAGE: Options = {"ask_rate": 0.1, "max_open": 8, "n_instructions": 16, "max_steps": 1500}
"""Instruction over hundreds of steps with more than twice the deliveries in as many steps."""

LONG_INSTRUCTION = AlgorithmPreset(
    run={
        "total_timesteps": 11_501_568,  # 1,404 rollouts
        "n_envs": 64,
        # two groups of names, in which a guess is right one time in three; all of them; villages
        # that grow, in episodes that end before they are only about what was lost; one of full size
        # in which more is asked. The price of a false message rises as they become rare, in the
        # end above the full one
        "curriculum": (
            {**DENSE_VILLAGE, "max_steps": 400, "false_reward": -0.05, "group_size": 4},
            {**DENSE_VILLAGE, "max_steps": 150, "false_reward": -0.02},
            {**DENSE_VILLAGE, "max_steps": 150, "false_reward": -0.05},
            {**DENSE_VILLAGE, "max_steps": 150, "false_reward": -0.1},
            village(3, 0.2, 0.15, 0.03, max_open=6, max_steps=300, false_reward=-0.1),
            village(4, 0.1, 0.1, 0.03, max_open=6, max_steps=500, false_reward=-0.1),
            village(5, 0.08, 0.08, 0.05, max_open=6, max_steps=800, false_reward=-0.1),
            village(6, 0.05, 0.05, 0.05, max_open=5, max_steps=1200, false_reward=-0.2),
            village(7, 0.03, 0.04, 0.04, max_open=4, max_steps=1600, false_reward=-0.2),
            {"max_steps": 2000, "false_reward": -0.2},
            BUSY_VILLAGE,
            {**BUSY_VILLAGE, "false_reward": -1.0},
            {"max_steps": 1500, "false_reward": -2.0},
        ),
        "curriculum_steps": (*(600_000,) * 10, 2_000_000, 1_000_000, 4_000_000),
    },
    hyper_parameters={
        **INSTRUCTION_LEARNING,
        "target_kl": 0.15,  # at 0.05 recall is half of this after 600,000 steps, and lost later
        "first_target_live": 40.0,
        "target_live": 28.0,
    },
    memories={
        "expire-span": {
            "max_span": 1024.0,
            "ramp": 16.0,
            "initial_span": 0.25,
            # nothing presses in the last stage, whose returns are below those of the one before
            "max_live": 32,
            "max_live_from": 0.9,
        }
    },
)
"""Instruction over hundreds of steps, with eight names."""

COLLISION = AlgorithmPreset(
    run={
        "total_timesteps": 1_605_632,  # 196 rollouts
        "n_envs": 64,
        "curriculum": ({"n_questions": 40},),  # in which two or three pairs are known
        "curriculum_steps": 400_000,
    },
    hyper_parameters={
        **FULL_STEPS,
        "learning_rate": 1e-3,
        "learning_rate_schedule": "linear",
        "n_steps": 128,
        "batch_size": 1024,
        "n_epochs": 4,
        "gamma": 0.0,  # an answer is paid for at once and changes nothing
        "gae_lambda": 0.0,
        "target_kl": 0.15,  # at 0.06 0.77 are answered rightly in as many steps, not 0.85
        "ent_coef": 0.003,
        "use_by": "influence",  # by attention nearly all is kept
    },
    memories={
        "expire-span": {"max_span": 256.0, "ramp": 16.0, "initial_span": 0.5},
        "transformer-xl": {"window": 128},
        "adaptive-span": {"max_span": 256.0, "ramp": 16.0, "initial_span": 0.5},
    },
)


LONGER_HALLS: tuple[Options, ...] = (
    {"size": 7},
    {"size": 9, "random_length": True},
    {"size": 11, "random_length": True},
)
"""Halls that grow; from 7 cells to 13 at once an agent may learn to guess, and stay with it."""


def minigrid_memory(total_timesteps: int, *curriculum: Options) -> Mapping[str, AlgorithmPreset]:
    """PPO on MiniGrid's memory task, with easier halls first. Where the hall is short both ends of
    it are in view, and success comes without a memory; that leads to looking back where it is long.
    """
    return {
        "ppo": AlgorithmPreset(
            run={
                "total_timesteps": total_timesteps,
                "n_envs": 64,
                **easier_first(curriculum, 500_000),
            },
            hyper_parameters={
                **FULL_STEPS,
                "learning_rate": 1e-3,
                "learning_rate_schedule": "linear",
                "n_steps": 128,
                "batch_size": 1024,
                "n_epochs": 4,
                "target_kl": 0.03,
                "ent_coef": 0.01,
                "prediction_coef": 0.5,
            },
        )
    }


PRESETS: dict[str, Preset] = {
    "corridor": Preset(
        environments=("ExpireSpan/Corridor-v0",),
        algorithms={
            "ppo": AlgorithmPreset(
                run={"total_timesteps": 299_008, "n_envs": 32},  # 73 rollouts,
                hyper_parameters={
                    **FULL_STEPS,
                    "learning_rate": 1e-3,
                    "learning_rate_schedule": "linear",
                    "n_steps": 128,
                    "n_epochs": 4,
                    "ent_coef": 0.003,
                },
                memories=CORRIDOR_MEMORIES,
            ),
            "a2c": AlgorithmPreset(
                run={"total_timesteps": 999_936, "n_envs": 32},  # 1,953 rollouts,
                hyper_parameters={
                    "learning_rate": 1e-3,
                    "learning_rate_schedule": "linear",
                    "n_steps": 16,
                    "ent_coef": 0.003,
                },
                memories=CORRIDOR_MEMORIES,
            ),
        },
    ),
    "corridor-10000": Preset(algorithms={"ppo": LONG_CORRIDOR}),
    "portal-3": Preset(("ExpireSpan/Portal-3-v0",), portal(1_998_848)),  # 244 rollouts
    "portal": Preset(  # 732 rollouts; with shorter steps one seed of three repeats more mistakes
        ("ExpireSpan/Portal-v0", "ExpireSpan/Portal-5-v0"),
        portal(5_996_544, 3, min_lr_share=1.0),
    ),
    "portal-10": Preset(("ExpireSpan/Portal-10-v0",), portal(4_997_120, 3, 5)),  # 610 rollouts
    "collision": Preset(("ExpireSpan/Collision-v0",), {"ppo": COLLISION}),
    "instruction": Preset(
        ("ExpireSpan/Instruction-v0", "ExpireSpan/Instruction-short-v0"), {"ppo": INSTRUCTION}
    ),
    "instruction-long": Preset(("ExpireSpan/Instruction-long-v0",), {"ppo": LONG_INSTRUCTION}),
    "minigrid-memory-s7": Preset(("MiniGrid-MemoryS7-v0",), minigrid_memory(999_424)),  # 122
    "minigrid-memory-s9": Preset(  # 122 rollouts
        ("MiniGrid-MemoryS9-v0",), minigrid_memory(999_424, {"size": 7})
    ),
    "minigrid-memory-s13": Preset(  # 245 rollouts
        ("MiniGrid-MemoryS13-v0",),
        minigrid_memory(2_007_040, *LONGER_HALLS, {"size": 13, "random_length": True}),
    ),
    "minigrid-memory-s13-random": Preset(  # 245 rollouts
        ("MiniGrid-MemoryS13Random-v0",), minigrid_memory(2_007_040, *LONGER_HALLS)
    ),
    "none": Preset(),
}
"""Every preset by name. `none` is the library's defaults, for all other environments."""


def preset_for(env_id: str) -> str:
    """Name of the preset that lists the environment; "none" if no preset does."""
    name = env_id.rpartition(":")[2]
    return next((key for key, preset in PRESETS.items() if name in preset.environments), "none")

"""docs/metrics.md lists the keys that are logged, no more and no fewer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.logger import KVWriter, Logger

from expire_span.agents import MemoryA2C, MemoryPPO, make_vec_env

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
SHORT: dict[str, dict[str, Any]] = {
    "Corridor": {"min_length": 4, "max_length": 8},
    "Portal": {"n_rooms": 1},
    "Instruction": {"n_instructions": 1, "max_steps": 100},
    "Collision": {"n_questions": 5},
}
"""Every kind of environment, with episodes that end within a test."""

N_LAYERS = 2


class Keys(KVWriter):
    """Collects the keys written."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.seen |= key_values.keys()

    def close(self) -> None:
        pass


def documented() -> set[str]:
    """Keys in the first column of the tables, one per layer where they say so."""
    rows = re.findall(r"^\| (`.*?`) \|", DOCUMENT.read_text(), re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`(\w+/[^`]+)`", row)}
    return {name.format(layer=layer) for name in names for layer in range(N_LAYERS)}


def of_memory(keys: set[str]) -> set[str]:
    return {key for key in keys if key.startswith(("memory/", "retention/"))}


@pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])
def test_the_keys_logged_are_the_keys_documented(algorithm: Any) -> None:
    keys = Keys()
    keys.seen.add("curriculum/stage")  # the command line's own
    for env_id, kwargs in SHORT.items():
        env = make_vec_env(f"expire_span.envs:ExpireSpan/{env_id}-v0", 4, 0, kwargs)
        model = algorithm("MlpPolicy", env, n_steps=64, memory_kwargs={"n_layers": N_LAYERS})
        model.set_logger(Logger(None, [keys]))
        model.learn(1024)
    assert of_memory(keys.seen) == of_memory(documented())
    env = make_vec_env("Pendulum-v1", 2, 0)
    clipped = {"clip_range_vf": 0.2} if algorithm is MemoryPPO else {}
    model = algorithm("MlpPolicy", env, n_steps=16, memory="none", **clipped)
    model.set_logger(Logger(None, [keys]))
    model.learn(64)
    assert {"train/std", *(f"train/{name}" for name in clipped)} <= keys.seen
    assert keys.seen <= documented()

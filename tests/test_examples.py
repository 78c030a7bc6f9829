"""The examples of the documentation run, and show what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def own_environment() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(
        "own_environment", EXAMPLES / "own_environment.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_environment_of_your_own_is_trained_saved_and_played(own_environment: Any) -> None:
    right_answers = own_environment.main(total_timesteps=1024, episodes=32)
    assert right_answers.keys() == {"expire-span", "none"}
    assert all(0 <= share <= 1 for share in right_answers.values())


@pytest.mark.slow
def test_it_is_solved_with_a_memory_and_left_to_chance_without(own_environment: Any) -> None:
    right_answers = own_environment.main()
    assert right_answers["expire-span"] > 0.95 and right_answers["none"] < 0.35

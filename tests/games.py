"""The registered environments, each game once: what tests of every game are parametrised over."""

from __future__ import annotations

import pytest

from expire_span.envs import ENVIRONMENTS

ALIASES = {
    "ExpireSpan/Portal-5-v0": "ExpireSpan/Portal-v0",
    "ExpireSpan/Instruction-short-v0": "ExpireSpan/Instruction-v0",
}
"""Ids that say in full what another id has by default; tests/test_env_arguments.py checks it."""

GAMES = [env_id for env_id in ENVIRONMENTS if env_id not in ALIASES]

for_every_game = pytest.mark.parametrize("env_id", GAMES)

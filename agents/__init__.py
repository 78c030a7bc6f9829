"""Stable-Baselines3 algorithms with a memory.

from expire_span.agents import MemoryPPO
model = MemoryPPO("MlpPolicy", "expire_span.envs:ExpireSpan/Corridor-v0", seed=0)
model.learn(300_000, progress_bar=True)
"""

from .a2c import MemoryA2C
from .base import MemoryOnPolicyAlgorithm
from .checks import CheckpointError, DivergedError, NonFiniteError
from .environments import make_vec_env
from .policy import MemoryActorCriticPolicy
from .ppo import MemoryPPO
from .vec_env import GymnasiumVecEnv

__all__ = [
    "CheckpointError",
    "DivergedError",
    "GymnasiumVecEnv",
    "MemoryA2C",
    "MemoryActorCriticPolicy",
    "MemoryOnPolicyAlgorithm",
    "MemoryPPO",
    "NonFiniteError",
    "make_vec_env",
]

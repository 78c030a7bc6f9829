"""An environment of your own, learned with a memory and without one; docs/own_environment.md
explains it.

    python examples/own_environment.py --seed 0
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from expire_span.agents import MemoryPPO
from expire_span.training import evaluate_retention

DIGITS = 4
WAIT, ANSWER = DIGITS, DIGITS + 1
"""What is observed after the digit: nothing of interest, and that it is time to answer."""


class Recall(gym.Env[np.int64, np.int64]):
    """A digit is shown at the first step and must be named 5 to 20 steps later: reward 1, or 0."""

    observation_space = gym.spaces.Discrete(DIGITS + 2)
    action_space = gym.spaces.Discrete(DIGITS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.digit = self.np_random.integers(DIGITS)
        self.steps_left = self.np_random.integers(5, 21)
        # optional: this observation shows cue 0, and acting on it needs no cue
        return self.digit, {"memory": {"cue": 0, "decision": -1}}

    def step(self, action: np.int64) -> Any:
        if self.steps_left == 0:
            is_right = bool(action == self.digit)
            return np.int64(WAIT), float(is_right), True, False, {"is_success": is_right}
        self.steps_left -= 1
        answers = self.steps_left == 0
        info = {"memory": {"cue": -1, "decision": 0 if answers else -1}}
        return np.int64(ANSWER if answers else WAIT), 0.0, False, False, info


gym.register("Recall-v0", f"{__name__}:Recall")  # for train_rl.py --env own_environment:Recall-v0


def main(seed: int = 0, total_timesteps: int = 20_000, episodes: int = 500) -> dict[str, float]:
    """Train both agents. Returns the share of right answers of each, by memory."""
    right_answers = {}
    for memory, options in (("expire-span", {"max_span": 64}), ("none", {})):
        env = make_vec_env(Recall, n_envs=16, seed=seed)
        eval_env = make_vec_env(Recall, n_envs=16, seed=seed + 1000)
        model = MemoryPPO(
            "MlpPolicy", env, memory=memory, memory_kwargs=options, n_steps=64, seed=seed
        )
        watch = EvalCallback(eval_env, eval_freq=256, n_eval_episodes=100)  # prints as it goes
        model.learn(total_timesteps, callback=watch)

        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "recall")
            model = MemoryPPO.load(Path(folder) / "recall")
        mean, _ = evaluate_policy(model, eval_env, n_eval_episodes=episodes)
        right_answers[memory] = float(np.mean(mean))
        print(f"{memory}: {right_answers[memory]:.3f} of {episodes} answers are right")
        held = evaluate_retention(model, eval_env, episodes)
        print(f"cue_recall {held.cue_recall}, live memories by layer {held.live_memory_mean}")

        obs, state, starts = env.reset(), None, None
        for _ in range(100):  # play: pass the state on, and say where episodes begin
            action, state = model.predict(obs, state, starts, deterministic=True)
            obs, _reward, starts, _infos = env.step(action)
    return right_answers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--total-timesteps", type=int, default=20_000)
    parser.add_argument("--episodes", type=int, default=500)
    main(**vars(parser.parse_args()))

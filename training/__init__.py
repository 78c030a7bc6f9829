"""Everything around a training run: options, presets, evaluation, files, plots and logs.

    from expire_span.training import evaluate_retention
    evaluation = evaluate_retention(model, vec_env, n_episodes=1000)
    evaluation.success_rate, evaluation.cue_recall, evaluation.live_memory_mean

`train_rl.py` is the command line over this package.
"""

from .arguments import UserError, parse
from .config import ALGORITHMS, A2COptions, PPOOptions, TrainConfig
from .evaluation import EpisodeRecord, Evaluation, evaluate_retention
from .presets import PRESETS
from .run_directory import DiskError, RunDirectory
from .wandb_log import WandbLog

__all__ = [
    "ALGORITHMS",
    "PRESETS",
    "A2COptions",
    "DiskError",
    "EpisodeRecord",
    "Evaluation",
    "PPOOptions",
    "RunDirectory",
    "TrainConfig",
    "UserError",
    "WandbLog",
    "evaluate_retention",
    "parse",
]

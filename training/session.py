"""One training run, step by step: open it, learn, evaluate, close. `train_rl.py` calls these."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from expire_span.agents import make_vec_env
from expire_span.agents.base import MemoryOnPolicyAlgorithm

from . import plots
from .arguments import UserError, as_sections, quoted
from .beginning import (
    EVALUATION_STREAM,
    TRAINING_STREAM,
    Beginning,
    begin,
    close_envs,
    fresh_seed,
    go_on,
)
from .config import AnyConfig
from .curriculum import Stage, StageEnd, evaluation_of, stages_of
from .evaluation import Evaluation, evaluate_retention
from .metrics_csv import LENGTH, STEPS, MetricsCsv
from .progress import Progress, ShowProgress
from .run_directory import RunDirectory, SaveCheckpoints
from .tensorboard_log import TensorBoardLog
from .wandb_log import WandbLog

FAR_LESS = 0.1
"""Shortfall of success with the likeliest actions from which an agent is said to be stuck."""

MAX_EVALUATION_ENVS = 100
"""Environments an evaluation plays side by side, at most one per episode."""

PATIENCE = 100_000
"""Steps in which an environment has to end an episode: more than the longest that are ours take,
corridors of 10,000 cells with 40,020. It is more where episodes in training were long."""


NOT_TAKEN = (
    *(ValueError, TypeError, LookupError, ArithmeticError, AssertionError, MemoryError, OSError),
    *(ImportError, RuntimeError, gymnasium.error.Error),
)
"""What environments and algorithms raise for arguments they do not take."""


class EndlessError(RuntimeError):
    """No episode of the environment ends, so that none can be evaluated."""


@dataclass
class Session:
    """What a run works with. `seconds` is the time spent learning in this session."""

    config: AnyConfig
    directory: RunDirectory
    model: MemoryOnPolicyAlgorithm
    metrics: MetricsCsv
    wandb: WandbLog | None
    seconds: float = 0.0
    steps_before: int = 0
    """Environment steps taken in earlier sessions of a resumed run."""

    @property
    def finished(self) -> bool:
        """Whether all environment steps have been taken."""
        return self.model.num_timesteps >= self.config.total_timesteps


def open_session(config: AnyConfig, argv: Sequence[str], warn: Callable[[str], None]) -> Session:
    """Make environment, agent, folder and logs. Nothing is written if the options do not fit.

    Raises: UserError if what was asked for cannot be done; DiskError if the folder takes no file.
    """
    _check_device(config.device)
    _check_threads(config.threads)
    torch.set_num_threads(config.threads)
    try:
        if config.resume is None:
            beginning = begin(config, warn)
        else:
            beginning = go_on(config, RunDirectory(config.resume))
    except UserError:
        raise
    except NOT_TAKEN as error:
        raise UserError(str(error)) from error
    with beginning.directory.unlocked_on_failure():
        return _open_logs(config, beginning, argv, warn)


def _check_device(device: str) -> None:
    try:
        if device != "auto":
            torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch was built without it
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"device = {device} cannot be used here: {reason}; use cpu or auto"
        ) from None


def _check_threads(threads: int) -> None:
    cores = os.cpu_count()
    if cores is not None and threads > cores:  # thousands of threads end the process
        raise UserError(
            f"threads = {threads} is above the {cores} CPU cores of this machine; use 1 to {cores}"
        )


def _open_logs(
    config: AnyConfig, beginning: Beginning, argv: Sequence[str], warn: Callable[[str], None]
) -> Session:
    directory, model, rows = beginning
    model.rescue_path = str(directory.rescued_model)
    metrics = MetricsCsv(directory.metrics, rows, warn)
    outputs: list[KVWriter] = [metrics]
    if config.tensorboard:
        outputs.append(TensorBoardLog(directory.path / "tensorboard", warn))
    wandb_log = None
    if config.wandb != "disabled":
        options = as_sections(config)
        wandb_log = WandbLog(directory.path, config.wandb, config.wandb_project, options, warn)
        outputs.append(wandb_log)
    directory.write_config(config, argv)
    model.set_logger(Logger(str(directory.path), outputs))
    return Session(
        config,
        directory,
        model,
        metrics,
        wandb_log,
        steps_before=model.num_timesteps,
    )


def learn(session: Session, callbacks: Sequence[BaseCallback], warn: Callable[[str], None]) -> None:
    """Train until `total_timesteps`, or until a callback stops it.

    Raises: NonFiniteError, and whatever the environment raises.
    """
    config, model = session.config, session.model
    checkpoints = SaveCheckpoints(session.directory, config.checkpoint_interval, warn)
    callbacks = [*callbacks, checkpoints]
    progress = ShowProgress(config.total_timesteps)
    if config.progress:
        callbacks.append(progress)
    began = time.monotonic()
    try:
        while True:
            stage_end = StageEnd(model.run_stage, config)
            model.learn(
                config.total_timesteps - model.num_timesteps,
                callback=[*callbacks, *([stage_end] if config.curriculum else [])],
                reset_num_timesteps=model.num_timesteps == 0,
            )
            if not stage_end.reached or session.finished:
                break
            _begin_next_stage(session, warn)
    finally:
        session.seconds = time.monotonic() - began
        progress.close()
        # what the last update said, which SB3 leaves for the rollout that does not come
        if model.logger.name_to_value:
            model.logger.record(STEPS, model.num_timesteps)
            model.logger.dump(model.num_timesteps)


def _begin_next_stage(session: Session, warn: Callable[[str], None]) -> None:
    """Give the agent the environments of the next stage."""
    config, model = session.config, session.model
    model.run_stage = stage = Stage(model.run_stage.number + 1, model.num_timesteps)
    seed = fresh_seed(config.seed, TRAINING_STREAM, model.num_timesteps)
    vec_env = make_vec_env(config.env, config.n_envs, seed, stages_of(config)[stage.number])
    assert model.env is not None
    close_envs(model.env, warn)
    model.set_env(vec_env)
    model.begin_task()


def save(session: Session) -> Path:
    """Save the model and return where it is. If the run's folder takes no more, that is a new one,
    where config.yaml and metrics.csv join it as far as they can, so that --resume takes it.

    Raises DiskError if the model could be written nowhere.
    """
    saved = session.directory.save_model(session.model)
    if saved != session.directory.model:
        rescued = RunDirectory(saved.parent)
        with contextlib.suppress(OSError):
            session.directory.copy_config(rescued.config, session.config)
        with contextlib.suppress(OSError):
            session.metrics.write_copy(rescued.metrics)
    return saved


def evaluate(session: Session, say: Callable[[str], None]) -> Evaluation:
    """Play fresh episodes in environments of their own.

    Raises: EndlessError if no more episode ends in `PATIENCE` steps, those of training included if
    none ended there.
    """
    config = session.config
    patience = _patience(session)
    if not _has_ended(session):
        patience = max(0, patience - session.model.num_timesteps // session.model.n_envs)
        if not patience:
            raise _endless(session, 0)
        say(f"no episode ended in training; evaluation waits {patience} steps for the end of one")
    n_envs = min(MAX_EVALUATION_ENVS, config.eval_episodes)
    seed = fresh_seed(config.seed, EVALUATION_STREAM)
    vec_env = make_vec_env(config.env, n_envs, seed, evaluation_of(config))
    progress = Progress("evaluation", config.eval_episodes, "episodes") if config.progress else None

    steps = 0

    def show(episodes: int) -> None:
        nonlocal steps, patience
        steps += 1
        if episodes:
            steps, patience = 0, _patience(session)
        elif steps >= patience:
            raise _endless(session, steps)
        if progress is not None and episodes:
            progress.advance(episodes)
            progress.say()

    try:
        return evaluate_retention(
            session.model,
            vec_env,
            config.eval_episodes,
            deterministic=config.eval_deterministic,
            on_step=show,
        )
    finally:
        if progress is not None:
            progress.close()
        close_envs(vec_env, say)


def _has_ended(session: Session) -> bool:
    """Whether an episode ended in training, or nothing is left that would say so."""
    rows = session.metrics.rows
    return not rows or any(LENGTH in row for row in rows)


def _patience(session: Session) -> float:
    """Steps after which an evaluation in which no more episode ends is given up."""
    longest = max((row[LENGTH] for row in session.metrics.rows if LENGTH in row), default=0)
    return max(PATIENCE, 100 * longest)


def _endless(session: Session, steps: int) -> EndlessError:
    trained = session.model.num_timesteps // session.model.n_envs
    config = session.config
    way_out = "Give it a time limit, as by max_episode_steps of gymnasium.register"
    lack = f"no episode ended in {trained} steps of training and {steps} of evaluation, as many"
    if _has_ended(session):
        lack = f"no episode ended in {steps} steps of evaluation, though some did in training,"
        if config.eval_deterministic:
            way_out += ", or play with drawn actions, as in training: --no-eval-deterministic"
    lack += f" in each environment: {config.env} cannot be evaluated"
    return EndlessError(f"{lack}. {way_out}")


def figures_of(session: Session, evaluation: Evaluation) -> dict[str, Any]:
    """What evaluation.json says: the evaluation's figures, and those of the run."""
    config = session.config
    return evaluation.figures() | {
        "env": config.env,
        "eval_env_kwargs": config.eval_env_kwargs,
        "memory": config.memory,
        "algo": config.algo,
        "seed": config.seed,
        "env_steps": session.model.num_timesteps,
        "env_steps_per_second": _steps_per_second(session),
        "seconds": round(session.seconds, 2),
    }


def report(session: Session, evaluation: Evaluation, figures: dict[str, Any]) -> None:
    """Write evaluation.json and the pictures, and complete the wandb run. Raises DiskError."""
    config, directory = session.config, session.directory
    directory.write_evaluation(figures)
    title = f"{config.env}, {config.memory}, {config.algo}, seed {config.seed}"
    curve = plots.learning_curve(session.metrics.rows, title)
    directory.write_plot(directory.learning_curve, curve)
    directory.write_plot(directory.retention, plots.retention(evaluation, title))
    if session.wandb is not None:
        pictures = (directory.learning_curve, directory.retention)
        session.wandb.finish(figures, pictures, session.model.num_timesteps)


def hint(session: Session, figures: dict[str, Any], saved: Path) -> str | None:
    """What there is to say of the agent `saved`, if it never met the environment it was evaluated
    in, or, with its likeliest actions, succeeds far less often than at the end of training.
    """
    last, folder = len(session.config.curriculum), quoted(saved.parent)
    stage = session.model.run_stage.number
    if stage < last:
        return (
            f"training ended in stage {stage} of the curriculum, whose stages are 0 to "
            f"{last}: the environment evaluated, which is the last, was never trained on. To go "
            f"on: train_rl.py --resume {folder} --total-timesteps N"
        )
    drawn, likeliest = session.model.ep_success_buffer, figures["success_rate"]
    if not session.config.eval_deterministic or likeliest is None or not drawn:
        return None
    in_training = sum(drawn) / len(drawn)
    if in_training - likeliest < FAR_LESS:
        return None
    return (
        f"{in_training:.0%} of the last {len(drawn)} training episodes succeeded, whose actions "
        "were drawn: of several that do as well, the likeliest may lead nowhere. With drawn ones: "
        f"train_rl.py --resume {folder} --no-eval-deterministic"
    )


def _steps_per_second(session: Session) -> float | None:
    """Of this session's learning; if there was none, what metrics.csv says of the last."""
    if session.seconds:
        steps = session.model.num_timesteps - session.steps_before
        return round(steps / session.seconds, 1)
    rates = [row["time/fps"] for row in session.metrics.rows if "time/fps" in row]
    return rates[-1] if rates else None


def close(session: Session, warn: Callable[[str], None]) -> None:
    """Close environment, logs and folder. To be called however the run ended."""
    try:
        session.model.logger.close()
    finally:
        try:
            if session.model.env is not None:
                close_envs(session.model.env, warn)
        finally:
            session.directory.unlock()

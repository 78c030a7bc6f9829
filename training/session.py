"""One training run, step by step: open it, learn, evaluate, close. `train_rl.py` calls these."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecEnv

import expire_span.envs  # noqa: F401  (registers the environments)
from expire_span.agents import CheckpointError, make_vec_env
from expire_span.agents.base import MemoryOnPolicyAlgorithm
from expire_span.agents.checks import check_checkpoint

from . import plots
from .arguments import UserError, as_sections
from .config import ALGORITHMS, AnyConfig
from .curriculum import StageEnd, stage_began, stage_reached, stages_of
from .evaluation import Evaluation, evaluate_retention
from .metrics_csv import STEPS, MetricsCsv, Row, read_metrics
from .progress import Progress, ShowProgress
from .run_directory import RunDirectory, SaveCheckpoints
from .wandb_log import WandbLog

MAX_EVALUATION_ENVS = 100
"""Environments an evaluation plays side by side, at most one per episode."""

TRAINING_STREAM, EVALUATION_STREAM = 1, 2
"""Independent streams of seeds, so that evaluation and a resumed run meet fresh episodes."""


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
    stage: int = 0
    """The stage of the curriculum."""
    stage_began: int = 0
    """The step at which it began, in an earlier session it may be."""

    @property
    def learned(self) -> bool:
        """Whether all steps are done."""
        return self.model.num_timesteps >= self.config.total_timesteps


def open_session(config: AnyConfig, argv: Sequence[str], warn: Callable[[str], None]) -> Session:
    """Make environment, agent, folder and logs. Nothing is written if the options do not fit.

    Raises: UserError if what was asked for cannot be done; DiskError if the folder takes no file.
    """
    torch.set_num_threads(config.threads)
    try:
        if config.resume is None:
            directory, model, rows, stage = _begin(config)
        else:
            directory, model, rows, stage = _go_on(config, RunDirectory(config.resume))
    except UserError:
        raise
    except (ValueError, TypeError, ImportError, OSError, RuntimeError, gymnasium.error.Error) as e:
        # whatever environments and algorithms raise for arguments that they do not take
        raise UserError(str(e)) from e
    if config.resume is None:
        directory.write_config(config, argv)
    model.rescue_path = str(directory.rescued_model)
    metrics = MetricsCsv(directory.metrics, rows, warn)
    outputs: list[KVWriter] = [metrics]
    if config.tensorboard:
        outputs.append(TensorBoardOutputFormat(str(directory.path / "tensorboard")))
    wandb_log = None
    if config.wandb != "disabled":
        options = as_sections(config)
        wandb_log = WandbLog(directory.path, config.wandb, config.wandb_project, options)
        outputs.append(wandb_log)
    model.set_logger(Logger(str(directory.path), outputs))
    return Session(
        config,
        directory,
        model,
        metrics,
        wandb_log,
        steps_before=model.num_timesteps,
        stage=stage,
        stage_began=stage_began(rows, stage),
    )


Beginning = tuple[RunDirectory, MemoryOnPolicyAlgorithm, list[Row], int]
"""Folder, agent in its environments, lines of metrics.csv so far, and stage of the curriculum."""


def _begin(config: AnyConfig) -> Beginning:
    """What a new run begins with."""
    vec_env = _make_stages(config, 0)
    model = ALGORITHMS[config.algo].build(
        "MlpPolicy",  # one policy serves all observations
        vec_env,
        memory=config.memory,
        memory_kwargs=asdict(config.memory_options),
        seed=config.seed,
        device=config.device,
        **config.algorithm.algorithm_kwargs(),
    )
    if config.weights_from is not None:
        _take_weights(model, RunDirectory(config.weights_from))
    return RunDirectory.create(config), model, [], 0


def _go_on(config: AnyConfig, directory: RunDirectory) -> Beginning:
    """What a run that was stopped goes on with. Its running episodes are gone; it begins new ones,
    and what it logged after its last save is gone as well."""
    model = _saved_model(config, directory)
    rows = read_metrics(directory.metrics, until=model.num_timesteps)
    stage = stage_reached(rows)
    vec_env = _make_stages(config, stage)
    seed = _fresh_seed(config.seed, TRAINING_STREAM, model.num_timesteps)
    torch.manual_seed(seed)
    vec_env.seed(seed)
    model.set_env(vec_env)
    return directory, model, rows, stage


def _make_stages(config: AnyConfig, current: int) -> VecEnv:
    """The environments of the `current` stage. One of every other stage is made and closed, so that
    what is wrong with it shows now."""
    vec_env = _make_stage(config, current, config.n_envs)
    for stage, env_kwargs in enumerate(stages_of(config)):
        if stage == current:
            continue
        other = _make_stage(config, stage, n_envs=1)
        other.close()
        for space in ("observation_space", "action_space"):
            here, there = getattr(vec_env, space), getattr(other, space)
            if here != there:
                raise UserError(
                    f"stage {stage} of the curriculum, {env_kwargs}, has the {space} {there}, "
                    f"another than {here}; one agent plays all stages, so leave the spaces alike"
                )
    return vec_env


def _make_stage(config: AnyConfig, stage: int, n_envs: int) -> VecEnv:
    env_kwargs = stages_of(config)[stage]
    try:
        return make_vec_env(config.env, n_envs, config.seed, env_kwargs)
    except TypeError as e:  # which may not say which argument it is about
        given = ", ".join(f"{name} = {value!r}" for name, value in env_kwargs.items())
        raise UserError(f"{config.env} does not take {given or 'what it was given'}: {e}") from e
    except ValueError as e:
        if stage == len(config.curriculum):
            raise
        raise UserError(
            f"{e}; this is stage {stage} of the curriculum, {env_kwargs}. Give another "
            "--curriculum, or none: --curriculum --curriculum-steps None"
        ) from e


def _take_weights(model: MemoryOnPolicyAlgorithm, source: RunDirectory) -> None:
    """Give a new agent the weights of the one saved in `source`; its optimizer begins anew."""
    try:
        check_checkpoint(source.model, model.algorithm)
        parameters = load_from_zip_file(source.model, device=model.device, load_data=False)[1]
        weights: Any = parameters["policy"]
        model.policy.load_state_dict(weights)
    except (CheckpointError, FileNotFoundError) as error:
        raise UserError(f"--weights-from {source.path}: {error}") from None
    except RuntimeError as error:  # torch's, a line for each weight
        reason = str(error).splitlines()[1].strip()
        raise UserError(
            f"--weights-from {source.path}: its network is another: {reason} Take over the options "
            f"it was made with: --config {source.config} --weights-from {source.path}"
        ) from None


def _saved_model(config: AnyConfig, directory: RunDirectory) -> MemoryOnPolicyAlgorithm:
    """The agent of a stopped run, without environments."""
    try:
        model: MemoryOnPolicyAlgorithm = ALGORITHMS[config.algo].build.load(
            directory.model, device=config.device
        )
    except CheckpointError as error:
        raise UserError(f"{error}, or begin anew with --config {directory.config}") from None
    except FileNotFoundError:
        raise UserError(
            f"there is no {directory.model} to resume: the run was stopped before its first save; "
            f"begin anew with --config {directory.config}"
        ) from None
    return model


def _fresh_seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] // 2)


def learn(session: Session, callbacks: Sequence[BaseCallback], warn: Callable[[str], None]) -> None:
    """Train until `total_timesteps`, or until a callback stops it.

    Raises: NonFiniteError, and whatever the environment raises.
    """
    config, model = session.config, session.model
    callbacks = [
        *callbacks,
        SaveCheckpoints(session.directory, config.checkpoint_interval, warn),
    ]
    progress = ShowProgress(config.total_timesteps)
    if config.progress:
        callbacks.append(progress)
    began = time.monotonic()
    try:
        while True:
            stage_end = StageEnd(session.stage, session.stage_began, config)
            model.learn(
                config.total_timesteps - model.num_timesteps,
                callback=[*callbacks, *([stage_end] if config.curriculum else [])],
                reset_num_timesteps=model.num_timesteps == 0,
            )
            if not stage_end.reached or session.learned:
                break
            _begin_stage(session, session.stage + 1)
    finally:
        session.seconds = time.monotonic() - began
        progress.close()
        # what the last update said, which SB3 leaves for the rollout that does not come
        if model.logger.name_to_value:
            model.logger.record(STEPS, model.num_timesteps)
            model.logger.dump(model.num_timesteps)


def _begin_stage(session: Session, stage: int) -> None:
    """Give the agent the environments of another stage."""
    config, model = session.config, session.model
    session.stage, session.stage_began = stage, model.num_timesteps
    seed = _fresh_seed(config.seed, TRAINING_STREAM, model.num_timesteps)
    vec_env = make_vec_env(config.env, config.n_envs, seed, stages_of(config)[stage])
    assert model.env is not None
    model.env.close()
    model.set_env(vec_env)
    model.begin_task()


def evaluate(session: Session) -> Evaluation:
    """Play fresh episodes in environments of their own."""
    config = session.config
    n_envs = min(MAX_EVALUATION_ENVS, config.eval_episodes)
    seed = _fresh_seed(config.seed, EVALUATION_STREAM)
    vec_env = make_vec_env(config.env, n_envs, seed, config.env_kwargs)
    progress = Progress("evaluation", config.eval_episodes, "episodes") if config.progress else None

    def show(episodes: int) -> None:
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
        vec_env.close()


def report(session: Session, evaluation: Evaluation) -> dict[str, Any]:
    """Write evaluation.json and the pictures, and complete the wandb run. Returns the figures.

    Raises DiskError.
    """
    config, directory = session.config, session.directory
    steps = session.model.num_timesteps
    figures = evaluation.figures() | {
        "env": config.env,
        "memory": config.memory,
        "algo": config.algo,
        "seed": config.seed,
        "env_steps": steps,
        "env_steps_per_second": _steps_per_second(session),
        "seconds": round(session.seconds, 2),
    }
    directory.write_evaluation(figures)
    title = f"{config.env}, {config.memory}, {config.algo}, seed {config.seed}"
    curve = plots.learning_curve(session.metrics.rows, title)
    directory.write_plot(directory.learning_curve, curve)
    directory.write_plot(directory.retention, plots.retention(evaluation, title))
    if session.wandb is not None:
        pictures = (directory.learning_curve, directory.retention)
        session.wandb.finish(figures, pictures, steps)
    return figures


def _steps_per_second(session: Session) -> float | None:
    """Of this session's learning; if there was none, what metrics.csv says of the last."""
    if session.seconds:
        steps = session.model.num_timesteps - session.steps_before
        return round(steps / session.seconds, 1)
    rates = [row["time/fps"] for row in session.metrics.rows if "time/fps" in row]
    return rates[-1] if rates else None


def close(session: Session) -> None:
    """Close environment and logs. To be called however the run ended."""
    session.model.logger.close()
    if session.model.env is not None:
        session.model.env.close()

"""What a run begins with: agent, environments and folder, new or those of a stopped run."""

from __future__ import annotations

import contextlib
import pickle
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecEnv

import expire_span.envs  # noqa: F401  (registers the environments)
from expire_span.agents import CheckpointError, make_vec_env
from expire_span.agents.base import MemoryOnPolicyAlgorithm
from expire_span.agents.checks import check_checkpoint

from .arguments import (
    CHANGEABLE_ON_RESUME,
    NOT_REPEATED,
    SECTIONS,
    UserError,
    as_stored,
    quoted,
)
from .config import ALGORITHMS, AnyConfig
from .curriculum import Stage, evaluation_of, stages_of
from .metrics_csv import Row, read_metrics
from .presets import PRESETS, AlgorithmPreset, preset_for
from .run_directory import RunDirectory

TRAINING_STREAM, EVALUATION_STREAM = 1, 2
"""Independent streams of seeds, so that evaluation and a resumed run meet fresh episodes."""


EVALUATION = "the environment to evaluate in"


class Beginning(NamedTuple):
    """What a session begins with: the agent is in the environments of its stage, and `rows` are the
    lines of metrics.csv so far."""

    directory: RunDirectory
    model: MemoryOnPolicyAlgorithm
    rows: list[Row]


def begin(config: AnyConfig, warn: Callable[[str], None]) -> Beginning:
    """What a new run begins with."""
    preset = PRESETS[config.preset or "none"].algorithms
    if preset and config.algo not in preset:
        lack = f"preset = {config.preset} is for {', '.join(preset)} and not for {config.algo}"
        if config.preset != preset_for(config.env):
            raise UserError(f"{lack}; give another --algo, or --preset none")
        warn(f"{lack}, which begins with the library's defaults and without a curriculum")
    vec_env = _make_stages(config, 0)
    model = ALGORITHMS[config.algo].build(
        "MlpPolicy",  # one policy serves all observations
        vec_env,
        memory=config.memory,
        memory_kwargs=asdict(config.memory_options),
        seed=config.seed,
        device=config.device,
        **config.algorithm.algorithm_kwargs(config.memory),
    )
    model.run_options, model.run_stage = as_stored(config), Stage()
    if config.weights_from is not None:
        _take_weights(model, RunDirectory(config.weights_from))
    return Beginning(RunDirectory.create(config), model, [])


def go_on(config: AnyConfig, directory: RunDirectory) -> Beginning:
    """What a run that was stopped goes on with. Its running episodes are gone; it begins new ones,
    and what it logged after its last save is gone as well."""
    directory.lock()
    with directory.unlocked_on_failure():
        return _go_on(config, directory)


def _go_on(config: AnyConfig, directory: RunDirectory) -> Beginning:
    model = _saved_model(config, directory)
    _check_model(model, config, directory)
    rows = read_metrics(directory.metrics, until=model.num_timesteps)
    vec_env = _make_stages(config, model.run_stage.number)
    vec_env.seed(fresh_seed(config.seed, TRAINING_STREAM, model.num_timesteps))
    model.set_env(vec_env)
    return Beginning(directory, model, rows)


def _make_stages(config: AnyConfig, current: int) -> VecEnv:
    """The environments of the `current` stage. One of every other stage, and of those to evaluate
    in, is made, reset and closed, so that what is wrong with it shows now."""
    stages = stages_of(config)
    names = [f"stage {n} of the curriculum" for n in range(len(stages))]
    vec_env = _make(config, stages[current], names[current], config.n_envs)
    others = [(name, stages[n]) for n, name in enumerate(names) if n != current]
    if config.eval_env_kwargs:
        others.append((EVALUATION, evaluation_of(config)))
    for name, env_kwargs in others:
        other = _make(config, env_kwargs, name)
        for space in ("observation_space", "action_space"):
            here, there = getattr(vec_env, space), getattr(other, space)
            if here != there:
                raise UserError(
                    f"{name}, {env_kwargs}, has the {space} {there}, another than {here}; one "
                    "agent plays them all, so leave the spaces alike"
                )
    return vec_env


def close_envs(vec_env: VecEnv, warn: Callable[[str], None]) -> None:
    """Close environments. One that cannot be closed is no reason to lose what was done in it."""
    try:
        vec_env.close()
    except Exception as error:  # an environment may raise anything
        warn(f"an environment could not be closed: {error!r}")


def _make(
    config: AnyConfig, env_kwargs: dict[str, Any], name: str, n_envs: int | None = None
) -> VecEnv:
    """Environments with these arguments; errors call them by the name. Without a number one, that
    is only tried."""
    try:
        vec_env = make_vec_env(config.env, n_envs or 1, config.seed, env_kwargs)
        if n_envs is None:
            vec_env.reset()
            with contextlib.suppress(Exception):  # it is told when those played are closed
                vec_env.close()
        return vec_env
    except (Exception, SystemExit) as e:  # an environment may raise anything
        if isinstance(e, ValueError) and not _is_registered(config.env):
            raise  # which says what is wrong with the id
        problem = _problem(config.env, env_kwargs, e)
        of_preset = [given for given in _arguments_of_preset(config) if f"'{given}'" in str(e)]
        if of_preset:
            problem += (
                f"; {of_preset[0]} comes from preset = {config.preset}, made for other "
                "environments: --preset none goes without"
            )
        elif config.config is not None and isinstance(e, TypeError):
            problem += (
                f"; what {config.config} gives stays unless given here, and these leave it out: "
                "--env-kwargs --eval-env-kwargs --curriculum --curriculum-steps None"
            )
        elif env_kwargs != config.env_kwargs and not isinstance(e, TypeError):
            way_out = (
                "--eval-env-kwargs, or none: --eval-env-kwargs"
                if name == EVALUATION
                else "--curriculum, or none: --curriculum --curriculum-steps None"
            )
            problem += f"; this is {name}, {env_kwargs}. Give another {way_out}"
        raise UserError(problem) from e


def _is_registered(env_id: str) -> bool:
    return env_id.rpartition(":")[2] in gymnasium.registry


def _arguments_of_preset(config: AnyConfig) -> set[str]:
    """Names of the environment's arguments that the preset gives, in all stages."""
    run = PRESETS[config.preset or "none"].algorithms.get(config.algo, AlgorithmPreset()).run
    given = [run.get("env_kwargs", {}), run.get("eval_env_kwargs", {}), *run.get("curriculum", ())]
    used = [config.env_kwargs, config.eval_env_kwargs, *config.curriculum]
    return {name for arguments in given if arguments in used for name in arguments}


def _problem(env_id: str, env_kwargs: dict[str, Any], error: BaseException) -> str:
    """Why an environment could not be made, in words for the command line."""
    if isinstance(error, TypeError) and env_kwargs:  # it may not say which argument it is about
        given = ", ".join(f"{name} = {value!r}" for name, value in env_kwargs.items())
        return f"{env_id} does not take {given}: {error}"
    said = "".join(traceback.format_exception_only(error)).strip()
    return f"{env_id} could not be made: {said}"


def _take_weights(model: MemoryOnPolicyAlgorithm, source: RunDirectory) -> None:
    """Give a new agent the weights of the one saved in `source`; its optimizer begins anew."""
    try:
        check_checkpoint(source.model, model.algorithm)
        parameters = load_from_zip_file(source.model, device=model.device, load_data=False)[1]
        weights: Any = parameters["policy"]
        model.policy.load_state_dict(weights)
    except FileNotFoundError:
        raise UserError(
            f"--weights-from {source.path}: there is no checkpoint {source.model}; give the folder "
            "of a run that has one"
        ) from None
    except CheckpointError as error:
        raise UserError(f"--weights-from {source.path}: {error}") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"--weights-from {source.path}: {source.model} is corrupt, its weights cannot be read; "
            "give the folder of another run"
        ) from None
    except RuntimeError as error:  # torch's, a line for each weight
        reason = (str(error).splitlines()[1:] or [str(error)])[0].strip()
        raise UserError(
            f"--weights-from {source.path}: its network is another: {reason} Leave memory, the "
            "memory's options, net_arch and whether prediction_coef is 0 as they are in "
            f"{source.config}: --config {quoted(source.config)} --weights-from "
            f"{quoted(source.path)}"
        ) from None


def _saved_model(config: AnyConfig, directory: RunDirectory) -> MemoryOnPolicyAlgorithm:
    """The agent of a stopped run, without environments."""
    try:
        model: MemoryOnPolicyAlgorithm = ALGORITHMS[config.algo].build.load(
            directory.model, device=config.device
        )
    except CheckpointError as error:
        raise UserError(
            f"{error}, or begin anew with --config {quoted(directory.config)}"
        ) from None
    except FileNotFoundError:
        raise UserError(
            f"there is no {directory.model} to resume: the run was stopped before its first save; "
            f"{_rescued(directory)}begin anew with --config {quoted(directory.config)}"
        ) from None
    return model


def _rescued(directory: RunDirectory) -> str:
    """What to do with the agent that was saved as its training failed, if there is one."""
    if not directory.rescued_model.exists():
        return ""
    return (
        f"{directory.rescued_model} is the agent as training failed: rename it to "
        f"{directory.model.name} to go on with it, or "
    )


def _check_model(
    model: MemoryOnPolicyAlgorithm, config: AnyConfig, directory: RunDirectory
) -> None:
    """Raise UserError for an agent of another run, or one that has taken more steps than asked."""
    if not isinstance(model.run_options, dict):
        raise UserError(
            f"{directory.model} was saved by no run of train_rl.py; go on with it in the script "
            f"that saved it, or begin a run with its weights: {_with_weights(directory)}"
        )
    stored = as_stored(config)
    for section in SECTIONS:
        for name, value in stored[section].items():
            before = model.run_options[section].get(name, value)
            if before != value and name not in (*CHANGEABLE_ON_RESUME, *NOT_REPEATED):
                raise UserError(
                    f"{directory.model} was trained with {name} = {before}, and {directory.config} "
                    f"says {value}: that file was changed, or they are of different runs. Set it "
                    f"back, or begin a new run, {_with_weights(directory)}"
                )
    done = model.num_timesteps
    if config.total_timesteps <= done - model.n_envs * model.n_steps:  # not in the last rollout
        raise UserError(
            f"total_timesteps = {config.total_timesteps} is below the {done} steps that "
            f"{directory.path} has done; give more to go on, or {done} to evaluate the agent"
        )


def _with_weights(directory: RunDirectory) -> str:
    return f"--config {quoted(directory.config)} --weights-from {quoted(directory.path)}"


def fresh_seed(*entropy: int) -> int:
    """A seed that depends on all of the numbers given."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] // 2)

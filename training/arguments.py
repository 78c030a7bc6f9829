"""From a command line to a `TrainConfig`.

In two phases, because --env, --algo, --memory, --preset, --config and --resume settle which options
there are and what their defaults are: these six are read first, then everything by tyro.

Later sources win: dataclass defaults, preset, config file, command line.
"""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import tyro
import yaml

from expire_span.memory import MEMORIES

from .assignments import assignments, stage_words
from .config import ALGORITHMS, AnyConfig, TrainConfig
from .presets import PRESETS, AlgorithmPreset, preset_for

SECTIONS = ("run", "algorithm", "memory_options")
"""Parts of a configuration in config.yaml: the run's own options, and those of the two choices."""

OF_SEVERAL_WORDS = ("env_kwargs", "eval_env_kwargs", "curriculum", "curriculum_steps", "net_arch")

NOT_REPEATED = ("run_dir", "config", "resume")
"""Options of a run that its repetition does not take over."""

CHANGEABLE_ON_RESUME = (
    "total_timesteps",
    "device",
    "threads",
    "checkpoint_interval",
    "eval_episodes",
    "eval_env_kwargs",
    "eval_deterministic",
    "wandb",
    "wandb_project",
    "tensorboard",
    "progress",
)


class UserError(ValueError):
    """Something a user asked for cannot be done; the message says what, and the way out."""


def quoted(path: Path) -> str:
    """A path as a word of a shell command."""
    return shlex.quote(str(path))


@dataclass(frozen=True)
class _Choices:
    """The options that settle which other options there are. Help: see `TrainConfig`."""

    env: str | None = None
    algo: str | None = None
    memory: str | None = None
    preset: str | None = None
    config: Path | None = None
    resume: Path | None = None

    @property
    def source(self) -> Path | None:
        """The config file to be read."""
        return self.config if self.resume is None else self.resume / "config.yaml"


def parse(argv: Sequence[str]) -> AnyConfig:
    """Read a command line.

    Raises: UserError for unknown names and config files that cannot be read; SystemExit 0 after
    --help, SystemExit 2 after tyro has explained on stderr what is wrong.
    """
    choices = tyro.cli(_Choices, args=list(argv), return_unknown_args=True, add_help=False)[0]
    if choices.config is not None and choices.resume is not None:
        raise UserError(
            f"--config {choices.config} begins a run and --resume {choices.resume} goes on with "
            "one; give one of them"
        )
    source = choices.source
    advice = (
        "give the config.yaml of an earlier run"
        if choices.resume is None
        else "--resume takes the folder of an earlier run, in which a config.yaml lies"
    )
    saved = _read_config(source, advice) if source is not None else {}
    config = _parse_all(choices, saved, argv)
    _refuse_repeated(argv)
    _refuse_unused(argv, config)
    _refuse_large_batch(argv, config)
    if choices.resume is not None:
        _refuse_changes(_parse_all(choices, saved, ["--resume", str(choices.resume)]), config)
    return config


def _parse_all(choices: _Choices, saved: dict[str, Any], argv: Sequence[str]) -> AnyConfig:
    """Second phase: all options, with the defaults that the choices and the file give."""
    run = saved.get("run", {})
    env = str(choices.env or run.get("env", TrainConfig.env))
    algo = known("algorithm", choices.algo or run.get("algo", TrainConfig.algo), ALGORITHMS)
    memory = known("memory", choices.memory or run.get("memory", TrainConfig.memory), MEMORIES)
    given = choices.preset if choices.preset not in (None, "None") else None
    if given is not None and given != run.get("preset", given):
        raise UserError(
            f"preset = {given} does nothing beside {choices.source}, whose options come first; "
            "leave --preset out, or begin without the file"
        )
    _refuse_of_others(argv, algo, memory)
    preset = known("preset", given or run.get("preset") or preset_for(env), PRESETS)
    values = PRESETS[preset].algorithms.get(algo, AlgorithmPreset())

    options, memory_options = ALGORITHMS[algo].options, MEMORIES[memory].config
    default: AnyConfig = TrainConfig(
        algorithm=options(**values.hyper_parameters),
        memory_options=memory_options(**values.memories.get(memory, {})),
        **values.run,
        preset=preset,
    )

    def parsed(args: Sequence[str], default: AnyConfig) -> AnyConfig:
        config: AnyConfig = tyro.cli(
            TrainConfig[options, memory_options],  # type: ignore[valid-type]
            args=args,
            default=default,
            config=(tyro.conf.OmitArgPrefixes,),
            prog="train_rl.py",
        )
        return config

    if saved:
        from_file = _as_arguments(run, leave_out=(*NOT_REPEATED, "preset"))
        if algo == run.get("algo"):
            from_file += _as_arguments(saved["algorithm"])
        if memory == run.get("memory"):
            from_file += _as_arguments(saved["memory_options"])
        try:
            default = parsed(from_file, default)
        except SystemExit:  # after tyro has explained what is wrong
            raise UserError(f"this is in {choices.source}; mend the file") from None
    config = parsed([*argv, "--preset", preset], default)
    for what, name, names in (
        ("algorithm", config.algo, ALGORITHMS),
        ("memory", config.memory, MEMORIES),
    ):
        known(what, name, names)  # "None", which the first phase takes for not given
    for name in ("env_kwargs", "eval_env_kwargs"):
        given_here = getattr(config, name)
        if given_here and env == run.get("env", env):  # given one by one; none: none is left
            config = replace(config, **{name: getattr(default, name) | given_here})
    return config


def known(what: str, name: Any, names: Iterable[str]) -> str:
    """`name`, if it is one of `names`. Raises UserError with the nearest and all of them."""
    names = list(names)
    if name in names:
        return str(name)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"unknown {what} {name!r}; {hint}known: {', '.join(names)}")


# ------------------------------------------------------------------------------- config files


def as_sections(config: AnyConfig) -> dict[str, dict[str, Any]]:
    """A configuration as plain data, in the `SECTIONS` of config.yaml."""
    run = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if not is_dataclass(getattr(config, field.name))
    }
    parts = (run, vars(config.algorithm), vars(config.memory_options))
    return {
        section: {name: _plain(value) for name, value in part.items()}
        for section, part in zip(SECTIONS, parts, strict=True)
    }


def as_stored(config: AnyConfig) -> dict[str, dict[str, Any]]:
    """`as_sections`, as it comes back from the file an agent is saved in."""
    stored: dict[str, dict[str, Any]] = json.loads(json.dumps(as_sections(config), default=str))
    return stored


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())  # for a repetition from another folder
    return list(value) if isinstance(value, tuple) else value


def _read_config(path: Path, advice: str) -> dict[str, Any]:
    """The sections of a config.yaml; `advice` is what to give if it is none."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {advice}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}; {advice}") from None
    if not isinstance(data, dict) or not all(
        isinstance(data.get(section), dict) for section in SECTIONS
    ):
        raise UserError(f"{path} lacks one of the sections {', '.join(SECTIONS)}; {advice}")
    stages = data["run"].get("curriculum", [])
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise UserError(
            f"{path}: curriculum = {stages!r} is no list of mappings, as [{{n_rooms: 2}}]; "
            "mend the file"
        )
    if not isinstance(data.get("resumed", []), list):
        raise UserError(f"{path}: resumed = {data['resumed']!r} is no list; mend the file")
    return data


def _as_arguments(section: dict[str, Any], leave_out: Sequence[str] = ()) -> list[str]:
    """A section as command line words, so that tyro checks a file as it checks a command line."""
    words: list[str] = []
    for name, value in section.items():
        option = str(name).replace("_", "-")
        if name in leave_out:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, dict):
            words += [f"--{option}", *assignments(value)]
        elif name == "curriculum":
            if not isinstance(value, list) or not all(isinstance(stage, dict) for stage in value):
                raise UserError(
                    f"curriculum = {value!r} is no list of mappings, as [{{n_rooms: 2}}]"
                )
            words += [f"--{option}", *stage_words(value)]
        elif isinstance(value, list):
            words += [f"--{option}", *map(str, value)]
        else:
            words.append(f"--{option}={value}")  # one word: values may begin with a dash
    return words


def _refuse_changes(saved: AnyConfig, config: AnyConfig) -> None:
    """Raise UserError if `config` changes what a run has been trained with."""
    before, after = as_sections(saved), as_sections(config)
    folder = config.resume
    assert folder is not None
    if config.run_dir is not None and config.run_dir.resolve() != folder.resolve():
        raise UserError(
            f"run_dir = {config.run_dir} is another folder than {folder}, where --resume goes on; "
            "leave it out"
        )
    changeable = (*CHANGEABLE_ON_RESUME, "run_dir")
    for section in SECTIONS:
        for name, value in after[section].items():
            if value != before[section][name] and name not in changeable:
                raise UserError(
                    f"{name} = {value} differs from {before[section][name]}, with which the run "
                    f"was trained; --resume can change {', '.join(CHANGEABLE_ON_RESUME)} only. "
                    f"Begin a new run instead with --config {quoted(folder / 'config.yaml')}, and "
                    f"with --weights-from {quoted(folder)} if it is to have what was learned"
                )


def _given(argv: Sequence[str]) -> list[str]:
    """Names of the options on a command line, as in Python."""
    return [word.partition("=")[0][2:].replace("-", "_") for word in argv if word.startswith("--")]


def _refuse_repeated(argv: Sequence[str]) -> None:
    """Raise UserError for an option of several words that comes twice: the last alone would count.
    Of an option of one word that is what command lines are used to."""
    for name in OF_SEVERAL_WORDS:
        if _given(argv).count(name) > 1:
            option = name.replace("_", "-")
            raise UserError(f"--{option} is given twice; put all its words behind one --{option}")


def _refuse_of_others(argv: Sequence[str], algo: str, memory: str) -> None:
    """Raise UserError for an option on the command line that only algorithms or memories have that
    were not chosen."""
    algorithms = {name: _names(kind.options) for name, kind in ALGORITHMS.items()}
    memories = {name: _names(kind.config) for name, kind in MEMORIES.items()}
    has = _names(TrainConfig) | algorithms[algo] | memories[memory]
    for name in sorted(set(_given(argv))):
        option = name.removeprefix("no_")
        if option in has:
            continue
        for what, chosen, kinds in (("algo", algo, algorithms), ("memory", memory, memories)):
            if others := [kind for kind, names in kinds.items() if option in names]:
                raise UserError(
                    f"{what} = {chosen} has no option --{name.replace('_', '-')}; leave it out, or "
                    f"choose what has it: --{what} {' or '.join(others)}"
                )


def _names(options: Any) -> set[str]:
    return {field.name for field in fields(options)}


def _refuse_unused(argv: Sequence[str], config: AnyConfig) -> None:
    """Raise UserError for an option on the command line that, beside the others, changes nothing.
    Those of presets and files may be for another memory or algorithm."""
    given = _given(argv)
    options = vars(config) | vars(config.algorithm) | vars(config.memory_options)
    use_rms_prop = options.get("use_rms_prop", False)
    of_auto = ("target_live", "first_target_live", "use_by")
    no_spans = not MEMORIES[config.memory].learns_spans
    shared_spans = not MEMORIES[config.memory].spans_single_memories
    rules = (
        (no_spans, ("span_coef", *of_auto), f"memory = {config.memory}, which learns no spans"),
        (shared_spans, ("use_by",), f"memory = {config.memory}, whose memories share a span"),
        (options["span_coef"] != "auto", of_auto, f"span_coef = {options['span_coef']}"),
        (not options["use_sde"], ("sde_sample_freq",), "use_sde = False"),
        (not use_rms_prop, ("rms_prop_eps",), "use_rms_prop = False"),
        (use_rms_prop, ("adam_eps",), "use_rms_prop = True"),
        (options["ent_coef"] == 0, ("scale_ent_coef",), "ent_coef = 0"),
        (options["min_lr_share"] == 1, ("solved_by",), "min_lr_share = 1"),
        (not options["normalize_advantage"], ("solved_by",), "normalize_advantage = False"),
        (not config.curriculum, ("curriculum_steps", "curriculum_success"), "no curriculum"),
        (config.wandb == "disabled", ("wandb_project",), "wandb = disabled"),
        (options["gamma"] == 0, ("gae_lambda",), "gamma = 0"),
        (config.weights_from is not None, ("initial_span",), "weights_from, whose spans stay"),
    )
    for unused, names, reason in rules:
        for name in names:
            if unused and name in given and options.get(name) is not None:
                raise UserError(
                    f"{name} = {options[name]} changes nothing with {reason}; leave it out"
                )


def _refuse_large_batch(argv: Sequence[str], config: AnyConfig) -> None:
    """Raise UserError for a minibatch on the command line that is larger than a rollout. That of a
    preset is for its own number of environments, and may be all of a smaller rollout."""
    size = getattr(config.algorithm, "batch_size", None)
    rollout = config.n_envs * config.algorithm.n_steps
    if "batch_size" in _given(argv) and size is not None and size > rollout:
        raise UserError(
            f"batch_size = {size} is above the {rollout} transitions of a rollout, n_envs = "
            f"{config.n_envs} times n_steps = {config.algorithm.n_steps}; use {rollout} or less"
        )

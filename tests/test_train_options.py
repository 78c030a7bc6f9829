"""Options: every one is there, explained, and refused with advice when it does not fit."""

from __future__ import annotations

import ast
import inspect
from dataclasses import MISSING, fields, is_dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
import yaml
from stable_baselines3.common.utils import FloatSchedule

from expire_span.agents import MemoryPPO
from expire_span.agents.base import MemoryOnPolicyAlgorithm
from expire_span.agents.span_control import SPAN_DEFAULTS, make_span_control
from expire_span.memory import MEMORIES
from expire_span.train_rl import main
from expire_span.training import ALGORITHMS, PRESETS, UserError, parse
from expire_span.training.arguments import as_sections, as_stored
from expire_span.training.assignments import (
    assignments,
    parse_assignments,
    parse_stages,
    stage_words,
)
from expire_span.training.config import TrainConfig

CUDA = torch.cuda.is_available()


@pytest.mark.parametrize("algo,memory", list(product(ALGORITHMS, MEMORIES)))
def test_help_lists_every_option(
    algo: str, memory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--algo", algo, "--memory", memory, "--help"]) == 0
    text = capsys.readouterr().out
    names = {f.name for f in fields(TrainConfig)} - {"algorithm", "memory_options"}
    for options in (ALGORITHMS[algo].options, MEMORIES[memory].config):
        names |= {f.name for f in fields(options)}  # type: ignore[arg-type]
    words = set(text.replace(",", " ").split())
    assert {f"--{name.replace('_', '-')}" for name in names} <= words


def test_every_option_has_a_help_text() -> None:
    """tyro shows the string below a field; a field without one would have an empty help."""
    chosen: list[Any] = [TrainConfig, *(kind.options for kind in ALGORITHMS.values())]
    chosen += [kind.config for kind in MEMORIES.values()]
    classes: set[Any] = {base for choice in chosen for base in choice.__mro__ if is_dataclass(base)}
    for cls in classes:
        body = ast.parse(inspect.getsource(cls)).body[0].body  # type: ignore[attr-defined]
        for node, below in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign):
                assert isinstance(below, ast.Expr), ast.unparse(node)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_hyper_parameter_is_an_option_with_its_default(algo: str) -> None:
    elsewhere = {  # given by the run's options, or by policy_kwargs as net_arch
        *("self", "policy", "env", "memory", "memory_kwargs", "n_envs", "seed", "rescue_path"),
        *("policy_kwargs", "kwargs", "_init_setup_model", "rollout_buffer_class"),
    }
    parameters = {
        name: parameter.default
        for cls in (MemoryOnPolicyAlgorithm, ALGORITHMS[algo].build)
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if name not in elsewhere
    }
    options = {f.name: f.default for f in fields(ALGORITHMS[algo].options)}  # type: ignore[arg-type]
    assert {name: options.get(name, MISSING) for name in parameters} == parameters
    assert options.keys() - parameters.keys() == {
        "adam_eps",
        "first_target_live",
        "learning_rate_schedule",
        "net_arch",
        "stats_window_size",
    }


def test_presets_name_existing_options_and_give_way_to_explicit_ones() -> None:
    for name, algo, memory in product(PRESETS, ALGORITHMS, MEMORIES):
        parse(["--preset", name, "--algo", algo, "--memory", memory])
    assert parse([]).preset == "corridor"
    assert parse(["--env", "expire_span.envs:ExpireSpan/Corridor-v0"]).preset == "corridor"
    assert parse(["--env", "CartPole-v1"]).preset == "none"
    assert parse(["--n-steps", "7"]).algorithm.n_steps == 7
    assert parse(["--preset", "none"]).algorithm == ALGORITHMS["ppo"].options()


def test_arguments_of_the_environment_not_given_stay() -> None:
    words = ["--preset", "corridor-10000"]
    default, given = parse(words), parse([*words, "--env-kwargs", "view_size=5"])
    assert default.env_kwargs and given.env_kwargs == {**default.env_kwargs, "view_size": 5}
    assert parse([*words, "--env-kwargs", "max_length=9"]).env_kwargs["max_length"] == 9
    assert parse([*words, "--env-kwargs"]).env_kwargs == {}


def test_what_a_run_is_made_with_comes_back_from_its_config_file(tmp_path: Path) -> None:
    for name, algo, memory in product(PRESETS, ALGORITHMS, MEMORIES):
        config = parse(["--preset", name, "--algo", algo, "--memory", memory])
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(as_sections(config)))
        again = parse(["--config", str(file)])
        assert as_stored(replace(again, config=None)) == as_stored(config)


def test_a_preset_goes_with_advantages_left_as_they_are() -> None:
    config = parse(["--no-normalize-advantage"])
    assert config.preset == "corridor" and config.algorithm.solved_by == "advantages"
    kwargs = config.algorithm.algorithm_kwargs("expire-span")
    assert not MemoryPPO("MlpPolicy", "CartPole-v1", **kwargs).normalize_advantage


def test_a_preset_steers_no_spans_where_there_are_none_or_pressure_is_constant() -> None:
    words = ["--preset", "instruction-long"]
    for memory in MEMORIES:
        kwargs = parse([*words, "--memory", memory]).algorithm.algorithm_kwargs(memory)
        steers = kwargs["target_live"] is not None and kwargs["use_by"] == "influence"
        assert steers == (memory == "expire-span")
        assert (kwargs["target_live"] is not None) == (memory in ("expire-span", "adaptive-span"))
        MemoryPPO("MlpPolicy", "CartPole-v1", memory=memory, **kwargs | {"batch_size": None})
    kwargs = parse([*words, "--span-coef", "1e-4"]).algorithm.algorithm_kwargs("expire-span")
    model = MemoryPPO("MlpPolicy", "CartPole-v1", **kwargs | {"batch_size": None})
    assert model.span_control.coef == 1e-4
    parameters = inspect.signature(MemoryOnPolicyAlgorithm).parameters
    assert SPAN_DEFAULTS == {name: parameters[name].default for name in SPAN_DEFAULTS}


def test_the_optimizer_gets_its_epsilon() -> None:
    kwargs = parse(["--adam-eps", "1e-3"]).algorithm.algorithm_kwargs("expire-span")
    model = MemoryPPO("MlpPolicy", "CartPole-v1", **kwargs)
    (group,) = model.policy.optimizer.param_groups
    assert group["eps"] == 1e-3 and group["fused"]


@pytest.mark.parametrize(
    "schedule,rates",
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.25, 0, 0]),
        ("stable-decay", [1, 1, 0.5, 0, 0]),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule: str, rates: list[float]) -> None:
    words = ["--learning-rate-schedule", schedule, "--learning-rate", "1"]
    kwargs = parse(["--preset", "none", *words]).algorithm.algorithm_kwargs("expire-span")
    rate_at = FloatSchedule(kwargs["learning_rate"])
    assert [rate_at(left) for left in (1.0, 0.75, 0.25, 0.0, -0.01)] == pytest.approx(rates)


def test_the_target_of_live_memories_falls_in_the_second_half() -> None:
    words = ["--first-target-live", "40", "--target-live", "20"]
    kwargs = parse(["--preset", "none", *words]).algorithm.algorithm_kwargs("expire-span")
    control = make_span_control("auto", kwargs["target_live"], "attention")
    for left, live in ((1.0, 40), (0.5, 40), (0.25, 30), (0.0, 20)):
        control.update([1.0] * 100, live, left)
        assert control.coef == 0
        control.update([1.0] * 100, live + 0.1, left)
        assert control.coef > 0


def test_options_survive_the_way_through_config_yaml(tmp_path: Path) -> None:
    config = parse(
        "--env-kwargs a=1 b=[x,2.5] c=text d=null --net-arch 8 4 --span-coef 1e-05 "
        "--target-kl 0.1 --max-live 9 --tensorboard".split()
    )
    assert config.env_kwargs == {"a": 1, "b": ["x", 2.5], "c": "text", "d": None}
    assert config.algorithm.span_coef == 1e-5
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(as_sections(config)))
    again = as_sections(parse(["--config", str(path)]))
    assert again["run"].pop("config") == str(path)
    assert {**as_sections(config), "run": again["run"] | {"config": None}} == as_sections(config)
    assert again["algorithm"] == as_sections(config)["algorithm"]
    assert again["memory_options"] == as_sections(config)["memory_options"]


@pytest.mark.parametrize(
    "argv,says",
    [
        (["--memory", "expire-spam"], ["did you mean 'expire-span'", *MEMORIES]),
        (["--algo", "dqn"], ["unknown algorithm 'dqn'", "ppo, a2c"]),
        (["--preset", "coridor"], ["did you mean 'corridor'", "none"]),
        (["--env", "ExpireSpan/Coridor-v0"], ["ExpireSpan/Corridor-v0"]),
        (["--env", "no_such_module:Env-v0"], ["no_such_module"]),
        (["--env-kwargs", "colour=red"], ["colour"]),
        (["--env-kwargs", "max_length=2"], ["max_length = 2", "min_length = 3"]),
        (["--env-kwargs", "max_length=two"], ["max_length = 'two' must be a whole number"]),
        (["--env-kwargs", "red"], ["name=value"]),
        (["--env-kwargs", "max_length=8", "max_length=9"], ["max_length = 9 was given as 8"]),
        (["--curriculum", "max_length=8,max_length=9"], ["max_length = 9 was given as 8"]),
        (["--env-kwargs", "max_length=[8"], ["'max_length=[8'", "is not YAML"]),
        (["--curriculum", "max_length='8"], ["is not YAML"]),
        (["--max-spam", "3"], ["--max-spam", "--max-span"]),
        (
            ["--memory", "lstm", "--max-span", "3"],
            ["memory = lstm has no option --max-span", "--memory expire-span or adaptive-span"],
        ),
        (["--window", "5"], ["memory = expire-span has no option --window", "transformer-xl"]),
        (["--use-rms-prop"], ["algo = ppo has no option --use-rms-prop", "--algo a2c"]),
        (["--algo", "a2c", "--clip-range=1"], ["algo = a2c has no option --clip-range"]),
        (["--max-span", "-1"], ["max_span = -1", "above 0"]),
        (["--n-envs", "0"], ["n_envs = 0", "use 1 or more"]),
        (
            ["--preset", "none", "--n-steps", "8", "--n-envs", "4", "--batch-size", "1000"],
            ["batch_size = 1000 is above the 32 transitions of a rollout", "use 32 or less"],
        ),
        (["--batch-size", "100"], ["batch_size = 100", "n_steps = 128"]),
        (["--span-coef", "-1"], ["span_coef = -1"]),
        (["--adam-eps", "0"], ["adam_eps = 0.0 must be above 0"]),
        (["--first-target-live=inf", "--target-live=9"], ["first_target_live = inf falls to"]),
        (["--scale-ent-coef", "--ent-coef=0"], ["scale_ent_coef = True changes nothing"]),
        (["--first-target-live", "9"], ["first_target_live = 9", "target_live = None"]),
        (["--first-target-live", "9", "--target-live", "0"], ["target_live = 0", "above 0"]),
        (
            ["--first-target-live", "9", "--target-live", "9.5"],
            ["first_target_live = 9", "target_live = 9.5"],
        ),
        (["--stats-window-size", "0"], ["stats_window_size = 0 is below 1"]),
        (["--learning-rate", "inf"], ["learning_rate = inf is out of bounds"]),
        (["--learning-rate", "-1"], ["learning_rate = -1.0 is out of bounds"]),
        (["--ent-coef", "nan"], ["ent_coef = nan is out of bounds"]),
        (["--vf-coef", "-1"], ["vf_coef = -1.0 is out of bounds"]),
        (["--net-arch", "8", "0"], ["net_arch = (8, 0)"]),
        (["--adam-eps", "inf"], ["adam_eps = inf must be above 0"]),
        (
            ["--algo", "a2c", "--use-rms-prop", "--rms-prop-eps", "0"],
            ["rms_prop_eps = 0.0 must be above 0"],
        ),
        (["--device", "meta"], ["device = meta cannot be used here", "use cpu or auto"]),
        (["--threads", "5000"], ["threads = 5000 is above the", "use 1 to"]),
        (["--device", "xpu"], ["device = xpu cannot be used here"]),
        (["--memory", "lstm", "--use-by", "influence"], ["use_by = influence changes nothing"]),
        (["--span-coef", "1e-4", "--target-live", "5"], ["target_live = 5.0 changes nothing"]),
        (["--memory", "gru", "--span-coef", "0.1"], ["memory = gru, which learns no spans"]),
        (["--memory", "none", "--target-live", "3"], ["target_live = 3.0 changes nothing"]),
        (["--span-coef=0.1", "--use-by", "influence"], ["nothing with span_coef = 0.1"]),
        (["--sde-sample-freq", "4"], ["sde_sample_freq = 4 changes nothing with use_sde = False"]),
        (["--algo", "a2c", "--rms-prop-eps", "1e-3"], ["nothing with use_rms_prop = False"]),
        (["--algo", "a2c", "--use-rms-prop", "--adam-eps", "1e-3"], ["use_rms_prop = True"]),
        (["--min-lr-share", "1", "--solved-by", "advantages"], ["nothing with min_lr_share = 1"]),
        (
            ["--no-normalize-advantage", "--solved-by", "advantages"],
            ["solved_by = advantages changes nothing with normalize_advantage = False"],
        ),
        (["--gamma", "0", "--gae-lambda", "0.3"], ["gae_lambda = 0.3 changes nothing"]),
        (
            ["--weights-from", "runs/other", "--initial-span", "0.1"],
            ["initial_span = 0.1 changes nothing with weights_from"],
        ),
        (["--curriculum-steps", "9"], ["curriculum_steps = 9 changes nothing with no curriculum"]),
        (["--wandb", "disabled", "--wandb-project", "a"], ["wandb_project = a changes nothing"]),
        (
            ["--env", "CartPole-v1", "--preset", "portal"],
            ["does not take n_rooms = 3", "comes from preset = portal", "--preset none goes"],
        ),
        (["--curriculum_success", "0.8"], ["curriculum_success = 0.8 changes nothing"]),
        (["--width", "10", "--n-heads", "4"], ["width"]),
        (["--device", "abacus"], ["abacus"]),
        *(
            [(["--device", "cuda"], ["device = cuda cannot be used here", "use cpu or auto"])]
            * (not CUDA)
        ),
        (["--target-kl", "-1"], ["target_kl = -1.0 must be above 0"]),
        (["--initial-span", "0"], ["initial_span = 0", "1 steps use 0.0"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "config.yaml of an earlier run"]),
        (["--resume", "nowhere"], ["nowhere", "--resume takes the folder of an earlier run"]),
        (["--resume", "a/model.zip"], ["a/model.zip", "--resume takes the folder"]),
        (["--resume", ""], ["--resume takes the folder"]),
        (["--config", "a", "--resume", "b"], ["give one of them"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_wrong_options_are_explained(
    argv: list[str],
    says: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    captured = capsys.readouterr()
    for words in says:
        assert words in captured.err
    assert "Traceback" not in captured.err and not captured.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error,says",
    [
        (FileNotFoundError("/data/levels.bin"), "FileNotFoundError: /data/levels.bin"),
        (RuntimeError("no display"), "RuntimeError: no display"),
        (ValueError("size = 3 is even"), "ValueError: size = 3 is even"),
        (KeyError("level"), "KeyError: 'level'"),
        (AssertionError(), "AssertionError"),
        (AttributeError("no such thing"), "AttributeError: no such thing"),
        (TypeError("not a number"), "TypeError: not a number"),
    ],
)
def test_what_an_environment_raises_when_made_is_told_with_its_id(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: Any) -> Any:
        raise error

    spec = gymnasium.envs.registration.EnvSpec("Unmade-v0", entry_point=fail)
    monkeypatch.setitem(gymnasium.registry, "Unmade-v0", spec)
    assert main(["--env", "Unmade-v0"]) == 2
    assert f"error: Unmade-v0 could not be made: {says}" in capsys.readouterr().err


def test_values_are_read_as_they_were_written() -> None:
    words = ["a=None", "b=1e-3", "c='1e-3'", "d=[x,{y: 'z,w'}]", "e=don't", "f='g,h'"]
    values = {"a": None, "b": 0.001, "c": "1e-3", "d": ["x", {"y": "z,w"}]}
    values |= {"e": "don't", "f": "g,h"}
    assert parse_assignments(words) == values
    assert parse_assignments(assignments(values)) == values
    assert parse_stages([",".join(words)]) == (values,)
    assert parse_stages(stage_words([values])) == (values,)


def saved_config(folder: Path, **run: Any) -> Path:
    """A config.yaml with some options of the run changed."""
    sections = as_sections(parse(["--n-steps", "77"]))
    sections["run"] |= run
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def test_a_preset_beside_a_file_is_refused_if_it_is_another(tmp_path: Path) -> None:
    file = ["--config", str(saved_config(tmp_path))]
    assert parse([*file, "--preset", "corridor"]).preset == "corridor"
    with pytest.raises(UserError, match=rf"preset = none does nothing beside {tmp_path}"):
        parse([*file, "--preset", "none"])


def test_help_shows_the_defaults_that_a_file_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(saved_config(tmp_path)), "--help"]) == 0
    assert "(default: 77)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "run", [{"curriculum": "x"}, {"curriculum": [1]}, {"n_envs": "many"}, {"colour": "red"}]
)
def test_what_is_wrong_in_a_file_is_said_to_be_in_it(
    run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved_config(tmp_path, **run)
    assert main(["--config", str(path)]) == 2
    assert f"{path}" in (text := capsys.readouterr().err) and "mend the file" in text


def test_values_that_begin_with_a_dash_and_relative_paths_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = parse(["--wandb-project=-x", "--weights-from", "other"])
    path = saved_config(tmp_path, **as_sections(first)["run"])
    again = parse(["--config", str(path)])
    assert (again.wandb_project, again.weights_from) == ("-x", tmp_path / "other")


@pytest.mark.parametrize("text", ["{", "run: {}", "[1]"])
def test_a_file_that_is_no_config_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml of an earlier run"):
        parse(["--config", str(path)])


@pytest.mark.parametrize("option", ["--env-kwargs", "--eval-env-kwargs", "--curriculum"])
def test_an_option_of_several_words_comes_once(option: str) -> None:
    with pytest.raises(UserError, match=f"{option} is given twice; put all its words behind one"):
        parse([option, "max_length=30", option.replace("env-", "env_"), "max_length=40"])


def test_a_preset_is_refused_for_another_algorithm_and_said_not_to_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = ["--run-dir", str(tmp_path / "run")]
    assert main(["--preset", "portal", "--algo", "a2c", *run_dir]) == 2
    said = "preset = portal is for ppo and not for a2c"
    assert f"{said}; give another --algo, or --preset none" in capsys.readouterr().err
    portal = ["--env", "expire_span.envs:ExpireSpan/Portal-v0", "--algo", "a2c", "--memory", "none"]
    short = ["--total-timesteps", "64", "--n-envs", "2", "--eval-episodes", "2"]
    assert main([*portal, *short, *run_dir, "--wandb", "disabled", "--no-progress"]) == 0
    assert f"{said}, which begins with the library's defaults" in capsys.readouterr().err

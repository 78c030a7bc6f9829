"""Whatever ends an evaluation, the message says where the model is."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from expire_span.agents import MemoryPPO, make_vec_env
from expire_span.agents.checks import NonFiniteError
from expire_span.train_rl import main
from expire_span.training import beginning as beginning_module
from expire_span.training import session as session_module

CORRIDOR = ["--env-kwargs", "min_length=4", "max_length=8"]
QUICK = [
    *("--total-timesteps", "1024", "--n-envs", "4", "--n-steps", "64", "--eval-episodes", "12"),
    *("--width", "16", "--wandb", "disabled", "--no-progress"),
]
SMALL = ["--n-heads", "2", "--ffn-width", "16"]


def test_values_that_are_not_finite_in_evaluation_are_told_with_the_model_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise NonFiniteError("evaluation failed: reward = nan")

    monkeypatch.setattr(session_module, "evaluate", fail)
    run_dir = tmp_path / "run"
    assert main([*CORRIDOR, *QUICK, *SMALL, "--run-dir", str(run_dir)]) == 1
    said = capsys.readouterr().err
    assert f"reward = nan; the model is saved in {run_dir / 'model.zip'}" in said


def test_an_error_of_the_environment_in_evaluation_is_told_with_the_model_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(session_module, "evaluate", fail)
    run_dir = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        main([*CORRIDOR, *QUICK, *SMALL, "--run-dir", str(run_dir)])
    said = f"evaluation failed; the model is saved in {run_dir / 'model.zip'}; train_rl.py"
    assert f"{said} --resume {run_dir} evaluates again" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_evaluation_that_is_told_to_end_says_that_the_model_is_saved(
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    def told(*_: Any) -> None:
        signal.raise_signal(number)
        raise AssertionError("the signal did nothing")

    before = signal.signal(number, signal.default_int_handler)  # tests may run under nohup
    request.addfinalizer(lambda: signal.signal(number, before))
    monkeypatch.setattr(session_module, "evaluate", told)
    run_dir = tmp_path / "run"
    short = ["--total-timesteps", "256", "--run-dir", str(run_dir)]
    assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 128 + number
    said = f"evaluation stopped; the model is saved in {run_dir / 'model.zip'}; train_rl.py"
    assert f"{said} --resume {run_dir} evaluates again" in capsys.readouterr().err


class Endless(gym.Env[Any, Any]):
    """Never ends an episode."""

    observation_space = gym.spaces.Box(0, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize(("patience", "waits"), [(100, 0), (300, 44)])
def test_an_environment_that_never_ends_is_not_evaluated_for_ever(
    patience: int,
    waits: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gym.register("Endless-v0", lambda **_: Endless())
    monkeypatch.setattr(session_module, "PATIENCE", patience)
    run_dir = tmp_path / "run"
    assert main(["--env", "Endless-v0", *QUICK, *SMALL, "--run-dir", str(run_dir)]) == 1
    del gym.registry["Endless-v0"]
    said = capsys.readouterr().err
    assert (f"evaluation waits {waits} steps" in said) == (waits > 0)
    assert f"no episode ended in 256 steps of training and {waits} of evaluation" in said
    assert "max_episode_steps" in said and f"the model is saved in {run_dir / 'model.zip'}" in said


class EndsByChance(Endless):
    """Ends where the second action is taken, and goes on for ever, at a better reward, without."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), float(action == 0), bool(action == 1), False, {}


def test_an_agent_that_never_ends_what_it_ended_in_training_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gym.register("EndsByChance-v0", lambda **_: EndsByChance())
    monkeypatch.setattr(session_module, "PATIENCE", 50)
    words = ["--env", "EndsByChance-v0", *QUICK, *SMALL, "--learning-rate", "3e-3"]
    assert main([*words, "--run-dir", str(tmp_path / "run")]) == 1
    del gym.registry["EndsByChance-v0"]
    said = capsys.readouterr().err
    assert "though some did in training" in said and "--no-eval-deterministic" in said


def test_a_run_whose_metrics_were_moved_away_is_evaluated(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    short = ["--total-timesteps", "256", "--run-dir", str(run_dir)]
    assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 0
    (run_dir / "metrics.csv").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "PATIENCE", 60)  # of 64 steps of training
        assert main(["--resume", str(run_dir)]) == 0


@pytest.mark.parametrize(
    ("option", "likeliest"), [([], True), (["--no-eval-deterministic"], False)]
)
def test_actions_are_the_likeliest_unless_they_are_to_be_drawn(
    option: list[str], likeliest: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    predict = MemoryPPO.predict

    def watched(model: MemoryPPO, obs: Any, state: Any, starts: Any, deterministic: bool) -> Any:
        asked.append(deterministic)
        return predict(model, obs, state, starts, deterministic)

    monkeypatch.setattr(MemoryPPO, "predict", watched)
    words = [*CORRIDOR, *QUICK, *SMALL, "--total-timesteps", "256", *option]
    assert main([*words, "--run-dir", str(tmp_path / "run")]) == 0
    assert asked and set(asked) == {likeliest}


def test_training_evaluation_and_a_resumed_run_begin_with_other_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bytes] = []

    def watched(*args: Any) -> Any:
        vec_env = make_vec_env(*args)
        reset = vec_env.reset

        def noted() -> Any:
            observations = reset()
            begun.append(np.asarray(observations).tobytes())
            return observations

        vec_env.reset = noted  # type: ignore[method-assign]
        return vec_env

    for module in (beginning_module, session_module):
        monkeypatch.setattr(module, "make_vec_env", watched)
    portal = ["--env", "expire_span.envs:ExpireSpan/Portal-v0", "--preset", "none"]
    run = [*portal, *QUICK, *SMALL, "--no-eval-deterministic", "--eval-episodes", "4"]
    assert main([*run, "--total-timesteps", "256", "--run-dir", str(tmp_path / "run")]) == 0
    assert main(["--resume", str(tmp_path / "run"), "--total-timesteps", "512"]) == 0
    trained, evaluated, resumed, evaluated_again = begun
    assert len({trained, evaluated, resumed}) == 3
    assert evaluated_again == evaluated  # what is compared meets the same


def test_an_agent_may_be_evaluated_in_other_episodes_than_it_was_trained_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = str(tmp_path / "run")
    words = [*CORRIDOR, *QUICK, *SMALL, "--total-timesteps", "256", "--run-dir", run_dir]
    longest = ["--no-eval-deterministic", "--eval-env-kwargs", "min_length=80", "max_length=80"]
    assert main([*words, *longest]) == 0
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert figures["eval_env_kwargs"] == {"min_length": 80, "max_length": 80}
    assert figures["mean_length"] > 80  # as training's corridors of 8 cells do not allow
    assert "min_length=80, max_length=80" in capsys.readouterr().out
    again = ["--resume", run_dir, "--eval-env-kwargs"]
    assert main([*again, "max_length=90"]) == 0  # the other stays
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert figures["eval_env_kwargs"] == {"min_length": 80, "max_length": 90}
    assert main(again) == 0
    assert "evaluated with" not in capsys.readouterr().out.rpartition("90")[2]
    for wrong, says in (("min_length=9", "is below min_length = 9"), ("view_size=7", "one agent")):
        assert main([*again, wrong]) == 2
        said = capsys.readouterr().err
        assert says in said and "the environment to evaluate in" in said

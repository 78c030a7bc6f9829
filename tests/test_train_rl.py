"""The command line: what a run leaves behind, and how it is repeated and gone on with."""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from expire_span.agents import MemoryPPO
from expire_span.memory import MEMORIES
from expire_span.train_rl import main
from expire_span.training import ALGORITHMS, RunDirectory, UserError, parse
from expire_span.training.arguments import as_stored
from expire_span.training.curriculum import Stage
from expire_span.training.metrics_csv import STEPS, read_metrics
from expire_span.training.session import close, hint, open_session
from expire_span.training.table import print_table

CORRIDOR = ["--env-kwargs", "min_length=4", "max_length=8"]
QUICK = [
    *("--total-timesteps", "1024", "--n-envs", "4", "--n-steps", "64", "--eval-episodes", "12"),
    *("--width", "16", "--wandb", "disabled", "--no-progress"),
]
SMALL = ["--n-heads", "2", "--ffn-width", "16"]
FILES = {
    ".lock",
    "config.yaml",
    "evaluation.json",
    "learning_curve.png",
    "metrics.csv",
    "model.zip",
    "retention.png",
}


def lines(run_dir: Path) -> list[dict[str, float]]:
    """metrics.csv without what depends on the clock."""
    timed = ("time/fps", "time/time_elapsed")
    return [
        {key: value for key, value in row.items() if key not in timed}
        for row in read_metrics(run_dir / "metrics.csv")
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    options = ["--seed", "3", "--tensorboard", "--net-arch", "8", "--max-span", "32"]
    assert main([*CORRIDOR, *QUICK, *SMALL, *options, "--run-dir", str(run_dir)]) == 0
    return run_dir


def test_a_run_leaves_every_file_and_nothing_partial(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == FILES | {"tensorboard"}


def test_evaluation_says_what_is_promised(finished: Path) -> None:
    figures = json.loads((finished / "evaluation.json").read_text())
    assert figures["episodes"] == 12 and figures["env_steps"] == 1024
    assert 0 <= figures["success_rate"] <= 1 and figures["mean_reward"] == figures["success_rate"]
    assert len(figures["live_memory_mean"]) == 2 and figures["env_steps_per_second"] > 0
    assert figures["cue_recall"] is None or 0 <= figures["cue_recall"] <= 1


def test_the_saved_agent_loads_and_plays(finished: Path) -> None:
    model = MemoryPPO.load(finished / "model.zip")
    assert model.num_timesteps == 1024 and model.policy.memory.n_layers == 2
    action, _ = model.predict(model.observation_space.sample())
    assert model.action_space.contains(int(action))


def test_config_yaml_repeats_the_run(finished: Path, tmp_path: Path) -> None:
    config = ["--config", str(finished / "config.yaml")]
    assert main([*config, "--run-dir", str(tmp_path / "again")]) == 0
    assert lines(tmp_path / "again") == lines(finished)
    first = yaml.safe_load((finished / "config.yaml").read_text())
    again = yaml.safe_load((tmp_path / "again" / "config.yaml").read_text())
    assert first["algorithm"] == again["algorithm"]
    assert first["memory_options"] == again["memory_options"]
    assert first["command"].startswith("python train_rl.py --env-kwargs")
    assert set(first["versions"]) >= {"torch", "gymnasium", "stable-baselines3", "expire-span"}


def test_options_change_a_config_that_is_repeated(finished: Path) -> None:
    source = ["--config", str(finished / "config.yaml")]
    config = parse([*source, "--seed", "9", "--max-span", "64"])
    assert (config.seed, config.memory_options.max_span) == (9, 64)
    assert (config.algorithm.n_steps, config.algorithm.net_arch) == (64, (8,))
    assert config.run_dir is None
    other = parse([*source, "--memory", "lstm"])
    assert other.memory_options == MEMORIES["lstm"].config() and other.algorithm.n_steps == 64


def test_resume_goes_on_where_the_run_stopped(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert main([*CORRIDOR, *QUICK, *SMALL, "--run-dir", str(run_dir)]) == 0
    before = lines(run_dir)
    assert main(["--resume", str(run_dir), "--total-timesteps", "2048"]) == 0
    after = lines(run_dir)
    assert after[: len(before)] == before
    assert [row[STEPS] for row in after[len(before) :]] == [1280, 1536, 1792, 2048, 2048]
    assert json.loads((run_dir / "evaluation.json").read_text())["env_steps"] == 2048
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["run"]["total_timesteps"] == 2048 and config["run"]["run_dir"] == str(run_dir)
    assert [session["command"] for session in config["resumed"]] == [
        f"python train_rl.py --resume {run_dir} --total-timesteps 2048"
    ]
    assert parse(["--resume", str(run_dir)]).total_timesteps == 2048
    assert parse(["--config", str(run_dir / "config.yaml")]).total_timesteps == 2048


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_run_begun_on_a_gpu_goes_on_without(finished: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(finished, run_dir)
    config = run_dir / "config.yaml"
    config.write_text(config.read_text().replace("device: auto", "device: cuda"))
    assert main(["--resume", str(run_dir)]) == 2
    assert main(["--resume", str(run_dir), "--device", "cpu"]) == 0
    assert yaml.safe_load(config.read_text())["run"]["device"] == "cpu"


def test_an_agent_of_another_run_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    options = ["--n-envs", "2", "--total-timesteps", "128", "--run-dir", str(run_dir)]
    assert main([*CORRIDOR, *QUICK, *SMALL, *options]) == 0
    shutil.copy(finished / "model.zip", run_dir)
    assert main(["--resume", str(run_dir), "--total-timesteps", "4096"]) == 2
    assert "was trained with total_timesteps" not in (said := capsys.readouterr().err)
    assert "was trained with n_envs = 4, and" in said and "--weights-from" in said
    config = parse(["--resume", str(finished)])
    options = replace(config.memory_options, max_span=33.0)
    for other in (replace(config, memory="lstm"), replace(config, memory_options=options)):
        with pytest.raises(UserError, match=r"trained with (memory = expire|max_span = 32\.0)"):
            open_session(other, [], print)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("gamma: 0.99", "gamma: 0.5", "gamma = 0.99, and"),
        ("seed: 3", "seed: 7", "seed = 3, and"),
        ("max_length: 8", "max_length: 6", "'max_length': 8}, and"),
    ],
)
def test_a_config_that_was_changed_is_not_gone_on_with(
    before: str,
    after: str,
    says: str,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(finished, run_dir)
    config = run_dir / "config.yaml"
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after))
    assert main(["--resume", str(run_dir), "--total-timesteps", "2048"]) == 2
    said = capsys.readouterr().err
    assert "model.zip was trained with" in said and says in said


def test_an_agent_of_no_run_is_not_gone_on_with(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(finished, run_dir)
    model = MemoryPPO.load(run_dir / "model.zip")
    model.run_options = None
    model.save(run_dir / "model.zip")
    assert main(["--resume", str(run_dir)]) == 2
    assert "was saved by no run of train_rl.py" in capsys.readouterr().err


def test_fewer_steps_than_are_done_are_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "config.yaml").read_bytes()
    assert main(["--resume", str(finished), "--total-timesteps", "768"]) == 2
    said = f"total_timesteps = 768 is below the 1024 steps that {finished} has done"
    assert said in capsys.readouterr().err and (finished / "config.yaml").read_bytes() == before


def test_one_process_at_a_time_writes_a_folder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RunDirectory(finished)
    first.lock()
    config = parse(["--resume", str(finished)])
    for _ in range(2):
        with pytest.raises(UserError, match=f"another process is writing {finished}"):
            open_session(config, [], print)
    first.unlock()
    close(open_session(config, [], print), print)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "now")
    new = [RunDirectory.create(parse([])) for _ in range(2)]
    assert new[0].path != new[1].path
    named = parse(["--run-dir", str(new[0].path)])
    with pytest.raises(UserError, match="another process is writing"):
        RunDirectory.create(named)
    for directory in new:
        directory.unlock()


def test_resuming_a_finished_run_evaluates_it_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(finished, run_dir)
    (run_dir / "evaluation.json").unlink()  # as if stopped while it was evaluated
    (run_dir / "retention.png").unlink()
    agent, log = (run_dir / "model.zip").read_bytes(), lines(run_dir)
    again = ["--eval-episodes", "7", "--no-eval-deterministic"]
    assert main(["--resume", str(run_dir), *again]) == 0
    assert "all 1024 steps are done" in capsys.readouterr().err
    figures = json.loads((run_dir / "evaluation.json").read_text())
    assert (figures["episodes"], figures["env_steps"]) == (7, 1024)
    assert figures["env_steps_per_second"] > 0
    assert {path.name for path in run_dir.iterdir()} == FILES | {"tensorboard"}
    assert (run_dir / "model.zip").read_bytes() == agent and lines(run_dir) == log


def test_resume_refuses_what_it_cannot_change(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--resume", str(finished), "--learning-rate", "1"]) == 2
    assert "learning_rate = 1.0 differs from 0.001" in capsys.readouterr().err
    assert main(["--resume", str(finished), "--run-dir", "elsewhere"]) == 2
    said = f"run_dir = elsewhere is another folder than {finished}, where --resume goes on"
    assert said in capsys.readouterr().err


def test_resume_takes_the_folder_itself_as_the_one_to_write(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.parent)
    config = parse(["--resume", str(finished), "--run-dir", finished.name])
    assert config.resume == finished


def test_a_run_begins_with_the_weights_of_another(finished: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "tuned"
    source = ["--config", str(finished / "config.yaml"), "--weights-from", str(finished)]
    own = ["--learning-rate", "0", "--seed", "4", "--total-timesteps", "256"]
    assert main([*source, *own, "--run-dir", str(run_dir)]) == 0
    weights = dict(MemoryPPO.load(finished / "model.zip").policy.named_parameters())
    tuned = MemoryPPO.load(run_dir / "model.zip")
    assert tuned.num_timesteps == 256 and tuned.seed == 4
    for name, value in tuned.policy.named_parameters():
        assert torch.equal(value, weights[name]), name


def test_weights_that_do_not_fit_are_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    new = [*CORRIDOR, *QUICK, *SMALL, "--run-dir", str(run_dir)]
    assert main([*new, "--weights-from", str(finished)]) == 2  # without its --net-arch
    text = capsys.readouterr().err
    assert "network is another" in text and f"--config {finished / 'config.yaml'}" in text
    assert main([*new, "--algo", "a2c", "--weights-from", str(finished)]) == 2
    assert "saved by MemoryPPO" in capsys.readouterr().err
    assert main([*new, "--weights-from", "nowhere"]) == 2
    said = "no checkpoint nowhere/model.zip; give the folder of a run"
    assert said in capsys.readouterr().err
    assert not run_dir.exists()


@pytest.mark.parametrize("memory", ["lstm", "none"])
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_memories_without_spans_and_both_algorithms(memory: str, algo: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    choice = ["--memory", memory, "--algo", algo, "--run-dir", str(run_dir)]
    assert main([*CORRIDOR, *QUICK, *choice, "--total-timesteps", "512"]) == 0
    figures = json.loads((run_dir / "evaluation.json").read_text())
    assert figures["live_memory_mean"] == (None if memory == "lstm" else [0.0, 0.0])
    assert {path.name for path in run_dir.iterdir()} == FILES


def short_run(env_id: str, run_dir: Path) -> dict[str, Any]:
    """The evaluation after hardly any training."""
    options = ["--total-timesteps", "512", "--eval-episodes", "2"]
    assert main([*QUICK, *SMALL, "--env", env_id, "--run-dir", str(run_dir), *options]) == 0
    figures: dict[str, Any] = json.loads((run_dir / "evaluation.json").read_text())
    return figures


def test_minigrid_ids_just_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = short_run("MiniGrid-MemoryS7-v0", tmp_path / "run")
    assert figures["episodes"] == 2 and figures["success_rate"] in (0.0, 0.5, 1.0)
    assert (figures["success_rate"] > 0) == (figures["mean_reward"] > 0)
    assert "success rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("drawn", "likeliest", "deterministic", "hints"),
    [
        ([True] * 99 + [False], 0.5, True, True),
        ([True] * 99 + [False], 0.95, True, False),
        ([True] * 99 + [False], 0.5, False, False),
        ([True] * 9, None, True, False),
        ([], 0.5, True, False),
        (None, 0.5, True, False),
    ],
)
def test_an_agent_whose_likeliest_actions_fail_is_told_of(
    drawn: list[bool] | None, likeliest: float | None, deterministic: bool, hints: bool
) -> None:
    saved = Path("some runs/one/model.zip")
    session: Any = SimpleNamespace(
        model=SimpleNamespace(ep_success_buffer=drawn, run_stage=Stage()),
        config=SimpleNamespace(eval_deterministic=deterministic, curriculum=()),
    )
    text = hint(session, {"success_rate": likeliest}, saved)
    assert (text is not None) == hints
    if text is not None:
        assert text.startswith("99% of the last 100 training episodes succeeded")
        assert text.endswith("--resume 'some runs/one' --no-eval-deterministic")
    session.config.curriculum = ({"n_rooms": 1}, {"n_rooms": 2})
    text = hint(session, {"success_rate": likeliest}, saved)
    assert (
        text is not None and "ended in stage 0 of the curriculum, whose stages are 0 to 2" in text
    )


def test_the_table_shows_any_name_on_any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"env": "größe:x:", "memory": "lstm", "algo": "ppo", "seed": 1, "episodes": 1}
    figures |= {"eval_env_kwargs": {}}
    figures |= {"success_rate": 1.0, "cue_recall": None, "precision": None, "tallies": {}}
    figures |= {"mean_reward": 1.0, "std_reward": 0.5, "mean_length": 9.0, "env_steps": 5}
    figures |= {"live_memory_mean": None, "live_memory_max": None, "env_steps_per_second": None}
    folder = RunDirectory(Path("runs/[test]a[/y]"))
    for encoding, expected in (("ascii", "1.000 ? 0.500"), ("utf-8", "1.000 ± 0.500")):
        stdout = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr("sys.stdout", stdout)
        print_table(figures, folder, folder.model)
        stdout.seek(0)
        text = stdout.read()
        assert expected in text and "files: runs/[test]a[/y]   agent: runs/[test]a[/y]/" in text


def test_where_no_success_is_reported_none_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert short_run("CartPole-v1", tmp_path / "run")["success_rate"] is None
    assert "success rate" not in capsys.readouterr().out


def test_threads_are_those_asked_for(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        short = ["--total-timesteps", "256", "--threads", str(before + 1)]
        assert main([*CORRIDOR, *QUICK, *SMALL, *short, "--run-dir", str(tmp_path / "run")]) == 0
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("option", ["--memory", "--algo"])
def test_none_is_no_name(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([option, "None"]) == 2
    assert "'None'" in (said := capsys.readouterr().err) and "known: " in said


def test_arguments_that_json_has_no_word_for_are_kept(tmp_path: Path) -> None:
    config = parse(["--env", "CartPole-v1", "--env-kwargs", "start=2020-01-01"])
    assert as_stored(config)["run"]["env_kwargs"] == {"start": "2020-01-01"}


def test_arguments_of_another_environment_are_not_taken_over(finished: Path) -> None:
    words = ["--config", str(finished / "config.yaml"), "--env-kwargs"]
    assert parse([*words, "max_length=9"]).env_kwargs == {"min_length": 4, "max_length": 9}
    other = parse([*words, "goal=3", "--env", "CartPole-v1"])
    assert other.env_kwargs == {"goal": 3}


def test_a_reader_of_the_progress_that_ends_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    words = [word for word in QUICK if word != "--no-progress"]
    monkeypatch.setattr(sys, "stderr", Gone())
    assert main([*CORRIDOR, *words, *SMALL, "--run-dir", str(tmp_path / "run")]) == 0
    assert lines(tmp_path / "run")[-1][STEPS] == 1024


def test_progress_is_told_in_ten_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in QUICK if word != "--no-progress"]
    assert main([*CORRIDOR, *words, *SMALL, "--run-dir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "training 100 %, 1024 steps" in said and "evaluation 100 %, 12 episodes" in said
    assert "live memories" in said and len(said.splitlines()) <= 20


def test_a_folder_of_any_name_that_text_can_hold_is_repeated_and_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "two\nlines: [1"
    short = ["--total-timesteps", "256", "--run-dir", str(run_dir)]
    assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 0
    assert main(["--resume", str(run_dir), "--total-timesteps", "512"]) == 0
    bytes_only = tmp_path / "bad\udcff"
    assert main([*CORRIDOR, *QUICK, *SMALL, "--run-dir", str(bytes_only)]) == 2
    said = capsys.readouterr().err
    assert "\\udcff" in said and "no UTF-8; give another --run-dir" in said
    assert not bytes_only.exists()


def test_a_config_for_another_environment_says_what_leaves_its_arguments_out(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(finished / "config.yaml")
    other = ["--config", config, "--env", "CartPole-v1", "--run-dir", str(tmp_path / "run")]
    assert main(other) == 2
    said = capsys.readouterr().err
    assert f"what {config} gives stays unless given here" in said and "min_length = 4" in said
    way_out = "--env-kwargs --eval-env-kwargs --curriculum --curriculum-steps None"
    assert way_out in said
    assert main([*other, *way_out.split()]) == 0

"""Curricula: easier forms first, the next when one is mastered or its steps are used up."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from expire_span.agents import MemoryPPO
from expire_span.train_rl import main
from expire_span.training import parse
from expire_span.training.arguments import UserError
from expire_span.training.curriculum import STAGE, Stage, StageEnd, stages_of
from expire_span.training.metrics_csv import STEPS, read_metrics

QUICK = [
    *("--env", "expire_span.envs:ExpireSpan/Portal-v0", "--preset", "none"),
    *("--env-kwargs", "n_rooms=2", "view_size=3"),
    *("--total-timesteps", "2048", "--n-envs", "4", "--n-steps", "64", "--eval-episodes", "8"),
    *("--width", "16", "--n-heads", "2", "--n-epochs", "1", "--wandb", "disabled", "--no-progress"),
    *("--no-eval-deterministic",),
]
STAGED = ["--curriculum", "n_rooms=1", "n_rooms=1,view_size=5"]


def stages(run_dir: Path) -> list[tuple[int, int]]:
    """Step and stage of every line."""
    return [
        (int(row[STEPS]), int(row[STAGE]))
        for row in read_metrics(run_dir / "metrics.csv")
        if STAGE in row
    ]


def test_stages_override_the_environments_arguments_and_it_is_last() -> None:
    config = parse([*QUICK, *STAGED])
    assert stages_of(config) == [
        {"n_rooms": 1, "view_size": 3},
        {"n_rooms": 1, "view_size": 5},
        {"n_rooms": 2, "view_size": 3},
    ]


# the views of these two stages differ in size, which no agent can follow
def test_stage_the_agent_cannot_play_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = ["--run-dir", str(tmp_path / "run")]
    assert main([*QUICK, *STAGED, *run_dir]) == 2
    assert "stage 1 of the curriculum" in capsys.readouterr().err
    assert main([*QUICK, "--curriculum", "n_rooms=99", *run_dir]) == 2
    assert "n_rooms = 99 is not between" in capsys.readouterr().err
    # arguments that do not go with the curriculum of the preset
    village = ["--env", "expire_span.envs:ExpireSpan/Instruction-v0", "--env-kwargs"]
    assert main([*village, "n_characters=8", *run_dir]) == 2
    says = capsys.readouterr().err
    for words in ("n_characters = 8", "group_size = 3", "stage 0", "--curriculum-steps None"):
        assert words in says
    # the last stage is the environment itself, and it is not what training begins with
    last = [word.replace("n_rooms=2", "n_rooms=99") for word in QUICK]
    assert main([*last, "--curriculum", "n_rooms=2", *run_dir]) == 2
    assert "n_rooms = 99 is not between" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--curriculum", "n_rooms"], "is not of the form name=value"),
        (["--curriculum-success", "0"], "curriculum_success = 0.0 is a share above 0"),
        (["--curriculum-steps", "0"], "curriculum_steps = 0 is below 1"),
        (
            ["--curriculum", "n_rooms=1", "n_rooms=3", "--curriculum-steps", "512", "0"],
            "curriculum_steps = (512, 0) is below 1",
        ),
        (
            ["--curriculum", "n_rooms=1", "--curriculum-steps", "512", "256"],
            "are for 2 stages, and curriculum has 1; give one for each, one for all, or None",
        ),
    ],
)
def test_invalid_options_are_named(
    option: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUICK, *option]) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_stages_follow_one_another_and_a_resumed_run_knows_its_own(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    staged = ["--curriculum", "n_rooms=1", "n_rooms=3", "--curriculum-steps", "512"]
    assert main([*QUICK, *staged, "--run-dir", str(run_dir)]) == 0
    reached = stages(run_dir)
    assert [stage for _, stage in reached] == sorted(stage for _, stage in reached)
    assert {stage for _, stage in reached} == {0, 1, 2}
    assert max(steps for steps, stage in reached if stage == 0) <= 512 + 256
    assert json.loads((run_dir / "evaluation.json").read_text())["env_steps"] >= 2048
    assert main(["--resume", str(run_dir), "--total-timesteps", "2560"]) == 0
    assert stages(run_dir)[-1][1] == 2


def test_a_resumed_stage_has_the_steps_that_were_left(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    staged = ["--curriculum", "n_rooms=1", "n_rooms=3", "--curriculum-steps", "512", "1024"]
    shorter = ["--total-timesteps", "1024"]
    assert main([*QUICK, *staged, *shorter, "--run-dir", str(run_dir)]) == 0
    assert stages(run_dir)[-1][1] == 1
    assert main(["--resume", str(run_dir), "--total-timesteps", "2560"]) == 0
    assert 1536 <= max(steps for steps, stage in stages(run_dir) if stage == 1) <= 1536 + 256


def test_a_stage_stopped_in_its_first_rollout_goes_on_with_what_it_has_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    on_step = StageEnd._on_step
    done: list[int] = []

    def interrupted(callback: StageEnd) -> bool:
        going_on = on_step(callback)
        if not done and callback.stage.number == 1 and callback.stage.successes:
            done.append(len(callback.stage.successes))
            signal.raise_signal(signal.SIGTERM)
        return going_on

    monkeypatch.setattr(StageEnd, "_on_step", interrupted)
    staged = ["--curriculum", "n_rooms=1", "n_rooms=1", "--curriculum-steps", "512"]
    assert main([*QUICK, *staged, "--run-dir", str(run_dir)]) == 128 + signal.SIGTERM
    assert {stage for _, stage in stages(run_dir)} == {0}  # no rollout of stage 1 was whole
    saved: Stage = MemoryPPO.load(run_dir / "model.zip").run_stage
    assert (saved.number, saved.began) == (1, 516) and len(saved.successes) >= done[0]
    assert main(["--resume", str(run_dir)]) == 0
    assert [stage for _, stage in stages(run_dir)] == sorted(stage for _, stage in stages(run_dir))
    assert len([stage for _, stage in stages(run_dir) if stage == 0]) == 2


def test_a_run_killed_after_its_last_save_goes_on_in_the_stage_of_that_save(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    staged = ["--curriculum", "n_rooms=1", "--curriculum-steps", "1024"]
    assert main([*QUICK, *staged, "--total-timesteps", "512", "--run-dir", str(run_dir)]) == 0
    saved = (run_dir / "model.zip").read_bytes()
    assert main(["--resume", str(run_dir), "--total-timesteps", "1536"]) == 0
    first = stages(run_dir)
    (run_dir / "model.zip").write_bytes(saved)  # as if later saves had not been
    assert main(["--resume", str(run_dir), "--total-timesteps", "1536"]) == 0
    assert stages(run_dir) == first and {stage for _, stage in first} == {0, 1}


def test_every_stage_can_have_steps_of_its_own(tmp_path: Path) -> None:
    staged = ["--curriculum", "n_rooms=1", "n_rooms=3", "--curriculum-steps", "256", "1024"]
    assert main([*QUICK, *staged, "--run-dir", str(tmp_path / "run")]) == 0
    reached = stages(tmp_path / "run")
    assert max(steps for steps, stage in reached if stage == 0) <= 256 + 256
    assert 1280 <= max(steps for steps, stage in reached if stage == 1) <= 1280 + 256


def test_stage_is_over_once_it_is_mastered(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    # one room is passed sooner or later, whatever the agent does
    staged = ["--curriculum", "n_rooms=1", "--curriculum-success", "0.4"]
    longer = ["--total-timesteps", "12288", "--n-envs", "16", "--n-epochs", "4"]
    assert main([*QUICK, *staged, *longer, "--run-dir", str(run_dir)]) == 0
    assert stages(run_dir)[-1][1] == 1


def test_a_stage_is_not_measured_by_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Advantages are normalised by no less than the largest deviation met so far; one from an
    easier stage would keep a harder one's small, beside an entropy bonus as strong as ever."""
    scales: list[tuple[int, float]] = []
    begin_update = MemoryPPO._begin_update

    def watched(model: MemoryPPO) -> None:
        model.advantage_scale.has_learned = True
        scales.append((model.num_timesteps, model.advantage_scale.largest))
        begin_update(model)

    monkeypatch.setattr(MemoryPPO, "_begin_update", watched)
    staged = ["--curriculum", "n_rooms=1", "--curriculum-steps", "512"]
    assert main([*QUICK, *staged, "--run-dir", str(tmp_path / "run")]) == 0
    fresh = [steps for steps, scale in scales if scale == 0]
    assert len(fresh) == 2 and fresh[0] == 256


def shown(callback: StageEnd, info: dict[str, bool], done: bool, times: int = 300) -> Stage:
    """The stage after the callback was shown so many steps."""
    callback.locals = {"infos": [info] * times, "dones": np.full(times, done)}
    callback._on_step()
    return callback.stage


def test_success_reported_before_the_end_is_no_episode() -> None:
    callback = StageEnd(Stage(), parse([*QUICK, *STAGED]))
    assert not shown(callback, {"is_success": True}, done=False).successes
    assert len(shown(callback, {"is_success": True}, done=True).successes) == 300


def test_a_curriculum_that_waits_for_a_success_nobody_reports_says_so() -> None:
    shown(StageEnd(Stage(), parse([*QUICK, *STAGED])), {}, done=True, times=99)
    with pytest.raises(UserError, match=r"none of 100 episodes of .*Portal-v0 said whether"):
        shown(StageEnd(Stage(), parse([*QUICK, *STAGED])), {}, done=True)
    limited = [*QUICK, *STAGED, "--curriculum-steps", "512"]
    shown(StageEnd(Stage(), parse(limited)), {}, done=True)
    shown(StageEnd(Stage(2), parse([*QUICK, *STAGED])), {}, done=True)

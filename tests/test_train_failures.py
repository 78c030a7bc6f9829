"""Whatever ends a run, what was trained is saved, and the message says where."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from expire_span.agents import MemoryPPO
from expire_span.agents.checks import (
    CheckpointError,
    DivergedError,
    NonFiniteError,
    check_checkpoint,
    check_return_size,
)
from expire_span.envs.corridor_vector import CorridorVectorEnv
from expire_span.train_rl import _train, main
from expire_span.training import metrics_csv, run_directory
from expire_span.training.arguments import parse
from expire_span.training.metrics_csv import STEPS, MetricsCsv, read_metrics
from expire_span.training.run_directory import SaveCheckpoints
from expire_span.training.session import close, open_session
from expire_span.training.tensorboard_log import TensorBoardLog
from expire_span.training.whole_file import write_whole

ROOT = Path(__file__).resolve().parents[1]
CORRIDOR = ["--env-kwargs", "min_length=4", "max_length=8"]
QUICK = [
    *("--total-timesteps", "1024", "--n-envs", "4", "--n-steps", "64", "--eval-episodes", "12"),
    *("--width", "16", "--wandb", "disabled", "--no-progress"),
]
SMALL = ["--n-heads", "2", "--ffn-width", "16"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    options = ["--seed", "3"]
    assert main([*CORRIDOR, *QUICK, *SMALL, *options, "--run-dir", str(run_dir)]) == 0
    return run_dir


def test_a_folder_that_holds_something_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert main([*CORRIDOR, *QUICK, "--run-dir", str(finished)]) == 2
    assert "is not empty" in (text := capsys.readouterr().err) and "--resume" in text
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_a_folder_of_other_files_is_not_taken_for_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").touch()
    assert main([*CORRIDOR, *QUICK, "--run-dir", str(tmp_path)]) == 2
    assert "is not empty" in (text := capsys.readouterr().err) and "--resume" not in text
    monkeypatch.chdir(tmp_path)
    assert main([*CORRIDOR, *QUICK]) == 2
    said = capsys.readouterr().err
    assert "run_dir = runs/Corridor-v0-" in said and "cannot be made: Not a directory" in said


def test_ctrl_c_saves_what_was_trained(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    long = ["--total-timesteps", "100000000", "--run-dir", str(run_dir)]
    command = [sys.executable, str(ROOT / "train_rl.py"), *CORRIDOR, *QUICK, *SMALL, *long]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (run_dir / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"saved in {run_dir / 'model.zip'}" in stderr and "--resume" in stderr
    assert "Traceback" not in stderr
    assert MemoryPPO.load(run_dir / "model.zip").num_timesteps > 0
    assert not (run_dir / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGTERM, 1), (signal.SIGTERM, 2), (signal.SIGHUP, 1)]
)
def test_a_run_that_is_told_to_end_saves_and_says_so(
    number: signal.Signals,
    times: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    def told(self: MemoryPPO) -> None:
        for _ in range(times):
            signal.raise_signal(number)

    before = signal.signal(number, signal.SIG_DFL)  # tests may run under nohup
    request.addfinalizer(lambda: signal.signal(number, before))
    run_dir = tmp_path / "run"
    monkeypatch.setattr(MemoryPPO, "train", told)
    assert main([*CORRIDOR, *QUICK, *SMALL, "--run-dir", str(run_dir)]) == 128 + number
    stderr = capsys.readouterr().err
    assert "stopping after this step; the model will be saved" in stderr
    assert f"saved in {run_dir / 'model.zip'}" in stderr and "failed" not in stderr
    assert MemoryPPO.load(run_dir / "model.zip").num_timesteps >= 256


def test_ctrl_c_while_logs_are_closed_changes_no_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = MetricsCsv.close

    def interrupted(metrics: MetricsCsv) -> None:
        close(metrics)
        raise KeyboardInterrupt

    monkeypatch.setattr(MetricsCsv, "close", interrupted)
    run_dir = tmp_path / "run"
    short = ["--total-timesteps", "256", "--run-dir", str(run_dir)]
    assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 0
    run_directory.RunDirectory(run_dir).lock()  # which is free


def test_a_run_whose_stderr_is_closed_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", None)
    short = ["--total-timesteps", "256", "--progress", "--run-dir", str(tmp_path / "run")]
    assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 0


def test_a_signal_waits_while_the_model_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(path: Path, content: bytes) -> None:
        if path.name == "model.zip":
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        write_whole(path, content)

    run_dir = tmp_path / "run"
    monkeypatch.setattr(run_directory, "write_whole", interrupted)
    short = ["--total-timesteps", "256", "--run-dir", str(run_dir)]
    assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 130
    assert "stopping once the model is saved" in (stderr := capsys.readouterr().err)
    assert f"stopped at step 256 of 256. The model is saved in {run_dir}" in stderr
    assert MemoryPPO.load(run_dir / "model.zip").num_timesteps == 256


def test_ctrl_c_outside_of_training_says_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    short = ["--total-timesteps", "256", "--run-dir", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(run_directory.RunDirectory, "save_model", interrupted)
        assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 130
    assert "stopped. Nothing was saved" in capsys.readouterr().err
    monkeypatch.setattr("expire_span.training.session.begin", interrupted)
    assert main([]) == 130
    assert "stopped before training began" in capsys.readouterr().err


def test_a_write_that_is_interrupted_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "model.zip", b"new")
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite_end_training_with_the_model_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: MemoryPPO) -> None:
        raise NonFiniteError("the loss is nan")

    monkeypatch.setattr(MemoryPPO, "train", fail)
    run_dir = tmp_path / "run"
    assert main([*CORRIDOR, *QUICK, *SMALL, "--run-dir", str(run_dir)]) == 1
    assert f"The model is saved in {run_dir}" in capsys.readouterr().err
    assert MemoryPPO.load(run_dir / "model.zip").num_timesteps == 256
    assert MemoryPPO.load(run_dir / "rescued_model.zip").num_timesteps == 256


def test_weights_that_diverged_leave_the_last_save(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    options = ["--run-dir", str(run_dir), "--total-timesteps", "512"]
    assert main([*CORRIDOR, *QUICK, *SMALL, *options]) == 0
    saved = (run_dir / "model.zip").read_bytes()
    config = parse(["--resume", str(run_dir), "--total-timesteps", "1024"])
    session = open_session(config, [], warnings_are_errors)
    with torch.no_grad():
        session.model.policy.value_net.weight.fill_(1e30)
    assert _train(session) == 1
    close(session, warnings_are_errors)
    assert "the weights have diverged" in capsys.readouterr().err
    assert (run_dir / "model.zip").read_bytes() == saved
    assert (run_dir / "rescued_model.zip").exists()


def test_an_error_of_the_environment_loses_nothing_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: MemoryPPO) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(MemoryPPO, "train", fail)
    with pytest.raises(ZeroDivisionError):
        main([*CORRIDOR, *QUICK, *SMALL, "--run-dir", str(tmp_path / "run")])
    said = f"training failed at step 256; the model is saved in {tmp_path / 'run' / 'model.zip'}"
    assert said in capsys.readouterr().err
    assert MemoryPPO.load(tmp_path / "run" / "model.zip").num_timesteps == 256


def test_an_environment_that_ends_the_process_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(self: MemoryPPO) -> None:
        raise SystemExit

    monkeypatch.setattr(MemoryPPO, "train", end)
    assert main([*CORRIDOR, *QUICK, *SMALL, "--run-dir", str(tmp_path / "run")]) == 1
    assert "the environment ended the process" in capsys.readouterr().err
    assert MemoryPPO.load(tmp_path / "run" / "model.zip").num_timesteps == 256
    monkeypatch.undo()

    def end_evaluation(*_: Any, **__: Any) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("expire_span.training.session.evaluate_retention", end_evaluation)
    resume = ["--resume", str(tmp_path / "run"), "--total-timesteps", "256"]
    assert main(resume) == 1
    said = capsys.readouterr().err
    assert "the environment ended the process" in said and "evaluates again" in said


def test_an_environment_that_cannot_be_closed_loses_no_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: CorridorVectorEnv, **_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(CorridorVectorEnv, "close", fail)
    short = ["--total-timesteps", "256", "--run-dir", str(tmp_path / "run")]
    assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 0
    assert "could not be closed: ZeroDivisionError()" in capsys.readouterr().err
    assert (tmp_path / "run" / "evaluation.json").exists()


def test_a_folder_that_is_gone_leaves_a_run_that_goes_on_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = MemoryPPO.train

    def remove(self: MemoryPPO) -> None:
        train(self)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)

    monkeypatch.setattr(MemoryPPO, "train", remove)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    short = ["--total-timesteps", "256", "--run-dir", str(tmp_path / "run")]
    assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 1
    monkeypatch.undo()
    (saved,) = tmp_path.glob("run-*/model.zip")
    assert read_metrics(saved.parent / "metrics.csv")
    assert main(["--resume", str(saved.parent), "--total-timesteps", "512"]) == 0


def test_an_agent_of_a_run_that_failed_before_its_first_save_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--total-timesteps", "256", "--run-dir", str(tmp_path / "run")]
    assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 0
    (tmp_path / "run" / "model.zip").rename(rescued := tmp_path / "run" / "rescued_model.zip")
    assert main(["--resume", str(tmp_path / "run")]) == 2
    assert f"{rescued} is the agent as training failed: rename it" in capsys.readouterr().err


def test_a_reward_beyond_all_bounds_is_not_taken_for_divergence() -> None:
    returns = np.full((2, 2), 1e13)
    with pytest.raises(NonFiniteError, match="the largest reward is 1e") as too_large:
        check_return_size(returns, returns, 4)
    assert not isinstance(too_large.value, DivergedError)
    with pytest.raises(DivergedError, match="the values have diverged"):
        check_return_size(returns, np.ones((2, 2)), 4)


class FullDisk:
    """Stands in for `write_whole`: after `room` files of a module the disk is full."""

    def __init__(
        self, room: int, monkeypatch: pytest.MonkeyPatch, module: ModuleType = run_directory
    ) -> None:
        self.room, self.write = room, write_whole
        monkeypatch.setattr(module, "write_whole", self)

    def __call__(self, path: Path, content: bytes) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.write(path, content)


def test_a_full_disk_leaves_the_last_save_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FullDisk(2, monkeypatch)  # room for config.yaml and one checkpoint
    run_dir = tmp_path / "run"
    options = ["--checkpoint-interval", "256", "--run-dir", str(run_dir)]
    assert main([*CORRIDOR, *QUICK, *SMALL, *options]) == 1
    stderr = capsys.readouterr().err
    assert "No space left on device" in stderr and "Training goes on" in stderr
    assert f"{run_dir / 'model.zip'} is the last save, and whole" in stderr
    assert MemoryPPO.load(run_dir / "model.zip").num_timesteps == 256


def test_what_was_measured_is_shown_though_a_picture_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FullDisk(3, monkeypatch)  # room for config.yaml, the model and evaluation.json
    short = ["--total-timesteps", "256", "--run-dir", str(tmp_path / "run")]
    assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 1
    captured = capsys.readouterr()
    assert "learning_curve.png: No space left" in captured.err and "success rate" in captured.out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_results_that_cannot_be_printed_are_told_in_one_line(tmp_path: Path) -> None:
    short = ["--total-timesteps", "256", "--run-dir", str(tmp_path / "run")]
    command = [sys.executable, str(ROOT / "train_rl.py"), *CORRIDOR, *QUICK, *SMALL, *short]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    model = tmp_path / "run" / "model.zip"
    said = f"error: cannot print the results: No space left on device; the model is in {model}"
    assert done.returncode == 1 and said in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    script = """
import resource, signal, sys
from pathlib import Path
from expire_span.training.whole_file import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(Path(sys.argv[1]), bytes(5000))
except OSError as error:
    print(error.strerror)
"""
    path = tmp_path / "model.zip"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == os.strerror(errno.EFBIG), (done, resource)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_without_room_in_the_run_directory_the_model_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path == tmp_path / "run" / "model.zip":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_whole(path, content)

    monkeypatch.setattr(run_directory, "write_whole", full)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    short = ["--total-timesteps", "256", "--run-dir", str(tmp_path / "run")]
    assert main([*CORRIDOR, *QUICK, *SMALL, *short]) == 1
    (saved,) = tmp_path.glob("run-*/model.zip")
    resume = ["--resume", str(saved.parent)]
    said = f"saved in {saved}; train_rl.py {' '.join(resume)} goes on"
    assert said in capsys.readouterr().err
    model = MemoryPPO.load(saved)
    assert model.num_timesteps == 256
    assert main([*resume, "--total-timesteps", "512"]) == 0
    assert [row[STEPS] for row in read_metrics(saved.parent / "metrics.csv")][:1] == [256]
    other = run_directory.RunDirectory(tmp_path / "run").save_model(model)  # a run of this name
    assert other != saved and other.exists()


def test_a_checkpoint_whose_bits_flip_is_no_checkpoint_or_is_read(
    finished: Path, tmp_path: Path
) -> None:
    content = (finished / "model.zip").read_bytes()
    with zipfile.ZipFile(finished / "model.zip") as archive:
        headers = [*range(archive.start_dir, len(content), 29), *range(30)]
    path = tmp_path / "model.zip"
    for place, bit in product(headers, range(8)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        with contextlib.suppress(CheckpointError):  # of some, such as the date, nothing depends
            check_checkpoint(path, "MemoryPPO")


def test_metrics_survive_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    warnings: list[str] = []
    folder = tmp_path / "gone"
    metrics = MetricsCsv(folder / "metrics.csv", [], warnings.append)
    metrics.write({"a": 1.0}, {"a": ()}, step=1)
    metrics.write({"a": 2.0}, {"a": ()}, step=2)
    assert len(warnings) == 1 and "kept in memory" in warnings[0]
    folder.mkdir()
    metrics.write({"a": 3.0, "b": 4.0, "c": 5.0}, {"a": (), "b": (), "c": ("csv",)}, step=3)
    metrics.write({"b": 6.0}, {"b": ()}, step=4)
    metrics.close()
    with (folder / "metrics.csv").open() as file:
        assert list(csv.reader(file)) == [
            [STEPS, "a", "b"],
            *(["1", "1.0", ""], ["2", "2.0", ""], ["3", "3.0", "4.0"], ["4", "", "6.0"]),
        ]
    assert read_metrics(folder / "metrics.csv", until=1) == [{STEPS: 1.0, "a": 1.0}]


def test_metrics_cut_off_in_a_line_are_read_without_it_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    metrics = MetricsCsv(path, [], warnings_are_errors)
    for step in (1, 2):
        metrics.write({"a": 0.125}, {"a": ()}, step)
    metrics.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b"3,1.23e-")
    rows = read_metrics(path)
    assert rows == [{STEPS: 1.0, "a": 0.125}, {STEPS: 2.0, "a": 0.125}]


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", f"{STEPS},a\n1,x\n".encode(), 999 * b"\xff\xfe\n"]
)
def test_metrics_that_are_none_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path} is damaged .*move it away") as error:
        read_metrics(path)
    assert len(str(error.value)) < 400 + len(str(path))  # none of what it holds


def test_tensorboard_files_that_cannot_be_written_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    log = TensorBoardLog(tmp_path, warnings.append)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(log.writer, "add_scalar", full)
    for step in (1, 2):
        log.write({"a": 1.0}, {"a": ()}, step)
    log.close()
    assert len(warnings) == 1 and f"cannot write {tmp_path}: No space left" in warnings[0]


def test_a_disk_without_room_for_tensorboard_ends_nothing(tmp_path: Path) -> None:
    warnings: list[str] = []
    (tmp_path / "file").touch()
    log = TensorBoardLog(tmp_path / "file" / "tensorboard", warnings.append)
    log.write({"a": 1.0}, {"a": ()}, 1)
    log.close()
    assert len(warnings) == 1 and f"cannot write {log.folder}: Not a directory" in warnings[0]


def test_metrics_on_disk_stay_while_they_cannot_be_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    path = tmp_path / "metrics.csv"
    metrics = MetricsCsv(path, [], warnings.append)
    metrics.write({"a": 1.0}, {"a": ()}, step=1)
    before = path.read_bytes()
    disk = FullDisk(0, monkeypatch, metrics_csv)
    metrics.write({"b": 2.0}, {"b": ()}, step=2)
    assert path.read_bytes() == before and len(warnings) == 1
    disk.room = 1
    metrics.close()
    assert read_metrics(path) == [{STEPS: 1.0, "a": 1.0}, {STEPS: 2.0, "b": 2.0}]


def test_metrics_interrupted_at_a_new_column_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "metrics.csv"
    metrics = MetricsCsv(path, [], warnings_are_errors)
    metrics.write({"a": 1.0}, {"a": ()}, step=1)
    with monkeypatch.context() as patch:
        patch.setattr(metrics_csv, "write_whole", interrupted)
        with pytest.raises(KeyboardInterrupt):
            metrics.write({"b": 2.0}, {"b": ()}, step=2)
    metrics.write({"a": 3.0, "b": 3.0}, {"a": (), "b": ()}, step=3)
    assert read_metrics(path) == [
        {STEPS: 1.0, "a": 1.0},
        {STEPS: 2.0, "b": 2.0},
        {STEPS: 3.0, "a": 3.0, "b": 3.0},
    ]


def test_metrics_of_what_was_not_saved_are_gone_once_the_run_has_gone_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    metrics = MetricsCsv(path, [], warnings_are_errors)
    for step in (1, 2):
        metrics.write({"a": 1.0}, {"a": ()}, step)
    metrics.close()
    saved = read_metrics(path, until=1)
    MetricsCsv(path, saved, warnings_are_errors).close()  # stopped before its first line
    assert read_metrics(path) == saved


def test_checkpoints_are_saved_at_the_interval(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    run = run_directory.RunDirectory(finished)
    monkeypatch.setattr(run, "save_checkpoint", lambda model: saved.append(model.num_timesteps))
    env = "expire_span.envs:ExpireSpan/Corridor-v0"
    model = MemoryPPO("MlpPolicy", env, n_envs=2, n_steps=8, memory="none")
    callback = SaveCheckpoints(run, 40, warnings_are_errors)
    model.learn(160, callback=callback)
    assert saved == [48, 96, 144]
    for _ in range(3):  # as by stages of a curriculum shorter than the interval
        model.learn(16, callback=callback, reset_num_timesteps=False)
    assert saved == [48, 96, 144, 192]


def warnings_are_errors(message: str) -> None:
    raise AssertionError(message)

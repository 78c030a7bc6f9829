"""An offline Weights & Biases run, read back from the file it leaves."""

from __future__ import annotations

import errno
import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from expire_span.train_rl import main
from expire_span.training import WandbLog

wandb = pytest.importorskip("wandb")

QUICK = [
    *("--env-kwargs", "min_length=4", "max_length=8"),
    *("--total-timesteps", "1024", "--n-envs", "4", "--n-steps", "64", "--eval-episodes", "4"),
    *("--width", "16", "--n-heads", "2", "--ffn-width", "16", "--no-progress"),
]


def records(path: Path) -> list[Any]:
    """Every record of a .wandb file: a header of 7 bytes, then LevelDB's log format, in which a
    record lies in one or more chunks, each with its checksum, length and type, none across a block.
    """
    from wandb.proto import wandb_internal_pb2

    read: Any = wandb_internal_pb2.Record  # type: ignore[attr-defined]
    block, header, (full, last) = 32768, struct.Struct("<IHB"), (1, 4)
    content = path.read_bytes()
    found, place, parts = [], 7, b""
    while place + header.size <= len(content):
        if block - place % block < header.size:  # too short for another chunk: padding
            place += block - place % block
            continue
        _, length, kind = header.unpack_from(content, place)
        place += header.size
        parts += content[place : place + length]
        place += length
        if kind in (full, last):
            found.append(read.FromString(parts))
            parts = b""
    return found


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("wandb") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE", raising=False)
        assert main([*QUICK, "--wandb-project", "corridors", "--run-dir", str(run_dir)]) == 0
    return whole_file(run_dir)


def whole_file(run_dir: Path) -> Path:
    """The file of the run, once wandb's service has written all of it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        paths = list(run_dir.glob("wandb/offline-run-*/run-*.wandb"))
        if paths and is_whole(paths[0]):
            break
        time.sleep(0.1)
    (path,) = paths
    return path


def is_whole(path: Path) -> bool:
    """Whether the run's last record is there."""
    try:
        return any(record.WhichOneof("record_type") == "exit" for record in records(path))
    except Exception as error:  # of protobuf's, whose types have no stubs
        if type(error).__name__ in ("DecodeError", "error"):
            return False
        raise


def test_the_metrics_are_in_the_history(run_file: Path) -> None:
    rows = []
    for record in records(run_file):
        if record.HasField("history"):
            items = record.history.item
            rows.append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items})
    for key in ("memory/live_mean", "memory/live_max", "memory/span_coef", "retention/precision"):
        assert sum(key in row for row in rows) == 3, key
    assert any("retention/cue_recall" in row for row in rows)
    assert [row["_step"] for row in rows if "memory/live_mean" in row] == [512, 768, 1024]
    types = {key: value for row in rows for key, value in row.items() if key.endswith("._type")}
    assert types == {"learning_curve._type": "image-file", "retention._type": "image-file"}


def test_configuration_and_evaluation_are_in_the_run(run_file: Path) -> None:
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for record in records(run_file):
        assert record.run.project in ("", "corridors")
        for item in (*record.config.update, *record.run.config.update):
            config[item.key] = json.loads(item.value_json)
        for item in record.summary.update:
            summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    assert any(record.run.project for record in records(run_file))
    assert config["run"]["total_timesteps"] == 1024
    assert config["algorithm"]["n_steps"] == 64 and config["memory_options"]["width"] == 16
    assert summary["evaluation/episodes"] == 4
    assert len(summary["evaluation/live_memory_mean"]) == 2


def test_the_pictures_are_kept_with_the_run(run_file: Path) -> None:
    pictures = {path.name.split("_")[0] for path in run_file.parent.rglob("*.png")}
    assert pictures == {"learning", "retention"}


def test_nothing_of_it_is_imported_when_disabled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise ImportError
    options = ["--wandb", "disabled", "--run-dir", str(tmp_path / "run")]
    assert main([*QUICK, *options, "--total-timesteps", "256"]) == 0
    assert not (tmp_path / "run" / "wandb").exists()


def test_a_full_disk_at_the_end_of_a_run_is_told_beside_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "Image", full)
    run_dir = tmp_path / "run"
    assert main([*QUICK, "--total-timesteps", "256", "--run-dir", str(run_dir)]) == 1
    captured = capsys.readouterr()
    assert f"error: cannot write {run_dir / 'wandb'}" in captured.err
    assert "No space left on device; wandb gets nothing more" in captured.err
    assert "success rate" in captured.out and (run_dir / "retention.png").exists()


def test_a_project_that_wandb_refuses_is_to_be_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUICK, "--wandb-project", "a/b", "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "'a/b'" in said and "another --wandb-project" in said and "--wandb offline" not in said


def test_online_without_an_account_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**settings: Any) -> None:
        (Path(settings["dir"]) / "wandb").mkdir()
        raise wandb.errors.UsageError("api_key not configured (no-tty)")

    monkeypatch.setattr(wandb, "init", refuse)
    assert main([*QUICK, "--wandb", "online", "--run-dir", str(tmp_path / "run")]) == 2
    assert "--wandb offline" in capsys.readouterr().err
    monkeypatch.undo()
    again = ["--wandb", "disabled", "--total-timesteps", "256", "--run-dir", str(tmp_path / "run")]
    assert main([*QUICK, *again]) == 0


@pytest.mark.parametrize(
    ("dies_in", "with_pictures"), [("log", False), ("log", True), ("finish", False)]
)
def test_a_service_that_ends_is_told_once_and_ends_nothing(
    dies_in: str,
    with_pictures: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = wandb.sdk.wandb_run.Run.log

    def gone(run: Any, *values: Any, **options: Any) -> None:
        if with_pictures and "retention" not in values[0]:
            log(run, *values, **options)
            return
        raise ConnectionResetError("the service is gone")

    monkeypatch.setattr(wandb.sdk.wandb_run.Run, dies_in, gone)
    run_dir = tmp_path / "run"
    assert main([*QUICK, "--run-dir", str(run_dir)]) == 0
    assert capsys.readouterr().err.count("wandb gets nothing more") == 1
    assert (run_dir / "evaluation.json").exists()


@pytest.mark.parametrize(("ends_by", "exit_code"), [("finish", 0), ("close", 1)])
def test_a_run_of_a_script_has_succeeded_if_the_script_says_so(
    ends_by: str, exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder, other_folder = tmp_path / "one", tmp_path / "other"
    folder.mkdir()
    other_folder.mkdir()
    other = WandbLog(other_folder, "offline", "scripts", {}, warn=print)  # goes on meanwhile
    log = WandbLog(folder, "offline", "scripts", {"max_span": 64}, warn=print)
    log.write({"apples": 3.0}, {"apples": ()}, step=7)
    getattr(log, ends_by)()
    found = records(whole_file(folder))
    assert [r.exit.exit_code for r in found if r.HasField("exit")] == [exit_code]
    assert any("apples" in str(r.history) for r in found if r.HasField("history"))
    other.write({"pears": 3.0}, {"pears": ()}, step=8)
    other.finish()
    assert any("pears" in str(record) for record in records(whole_file(other_folder)))

"""The folder of a run, and what is written to it.

model.zip             the agent; always a whole file, written beside and then renamed
config.yaml           every option, versions, commit and command: enough to repeat the run
metrics.csv           one line per rollout
evaluation.json       what the trained agent does in fresh episodes
learning_curve.png    success and live memories over training
retention.png         spans by kind of observation; which memories were live when
.lock                 held by the process that writes the folder
"""

from __future__ import annotations

import io
import json
import platform
import shlex
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback

from expire_span.agents.base import MemoryOnPolicyAlgorithm

from .arguments import CHANGEABLE_ON_RESUME, UserError, as_sections, quoted
from .config import AnyConfig
from .folder_lock import LOCK, FolderLock
from .whole_file import write_whole

PACKAGES = ("torch", "stable-baselines3", "gymnasium", "minigrid", "numpy", "expire-span")


class DiskError(RuntimeError):
    """A file of the run could not be written; the message says what is safe, and where."""


class RunDirectory:
    """Paths and files of one run, which one process at a time writes.

    Raises: UserError from `create` if the folder holds something already, or cannot be made, and
    from `create` and `lock` if another process has it; DiskError from the methods that write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model.zip"
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.evaluation = path / "evaluation.json"
        self.learning_curve = path / "learning_curve.png"
        self.retention = path / "retention.png"
        self.rescued_model = path / "rescued_model.zip"
        self._lock = FolderLock(path)

    @classmethod
    def create(cls, config: AnyConfig) -> RunDirectory:
        """Make and lock the folder that `config` names, or one under runs/. What wandb left there
        before it refused to begin does not count."""
        path = config.run_dir
        _check_name(path)
        if path is not None and path.is_dir():
            if any(file.name not in ("wandb", LOCK) for file in path.iterdir()):
                is_run = (path / "config.yaml").exists()
                go_on = f"go on with that run by --resume {quoted(path)}, or " if is_run else ""
                raise UserError(
                    f"run_dir = {path} is not empty; {go_on}give another --run-dir, or none for a "
                    "new one under runs/"
                )
        try:
            if path is None:
                path = _make_new(config)
            else:
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"run_dir = {path or error.filename} cannot be made: {error.strerror}; give "
                "another --run-dir"
            ) from None
        directory = cls(path)
        directory.lock()
        return directory

    def lock(self) -> None:
        """Take the sole right to write, until `unlock`."""
        if not self._lock.take():
            raise UserError(
                f"another process is writing {self.path}; wait until that run ends, or stop it, to "
                "go on with it; a new run needs another --run-dir"
            )

    def unlock(self) -> None:
        """Let others write."""
        self._lock.release()

    @contextmanager
    def unlocked_on_failure(self) -> Iterator[None]:
        """Unlock if what is done inside fails."""
        try:
            yield
        except BaseException:
            self.unlock()
            raise

    def write_config(self, config: AnyConfig, argv: Sequence[str]) -> None:
        """Write config.yaml. Of a run that is gone on with it keeps what the run was begun with,
        but for the options that --resume can change, and adds the command."""
        command = shlex.join(["python", "train_rl.py", *argv])
        if config.resume is not None:
            data = yaml.safe_load(self.config.read_text(encoding="utf-8"))
            now = as_sections(config)["run"]
            data["run"] |= {name: now[name] for name in CHANGEABLE_ON_RESUME}
            data.setdefault("resumed", []).append({"command": command, "commit": git_commit()})
        else:
            data = {
                "command": command,
                "commit": git_commit(),
                "versions": {"python": platform.python_version()} | _versions(),
                **as_sections(config),
            }
        repeat = f"python train_rl.py --config {quoted(self.config)} repeats this run."
        comment = textwrap.indent(repeat, "# ")
        text = f"{comment}\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}"
        self._replace(self.config, text.encode())

    def copy_config(self, to: Path, config: AnyConfig) -> None:
        """Write config.yaml elsewhere; if it is gone, what `config` says. Raises OSError."""
        try:
            content = self.config.read_bytes()
        except OSError:
            content = yaml.safe_dump(as_sections(config), sort_keys=False).encode()
        write_whole(to, content)

    def write_evaluation(self, figures: dict[str, Any]) -> None:
        """Write evaluation.json."""
        self._replace(self.evaluation, json.dumps(figures, indent=2).encode() + b"\n")

    def write_plot(self, path: Path, figure: Figure) -> None:
        """Write a picture of this run."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150)
        self._replace(path, buffer.getvalue())

    def save_model(self, model: MemoryOnPolicyAlgorithm) -> Path:
        """Write model.zip and return where it is: elsewhere, if the run's folder takes no more.

        The file of the last save stays as it was until the new one is whole. Raises DiskError if
        the model could be written nowhere.
        """
        content = _as_bytes(model)
        try:
            self._replace(self.model, content)
            return self.model
        except DiskError as error:
            try:
                folder = tempfile.mkdtemp(prefix=f"{self.path.name}-")
                elsewhere = Path(folder) / self.model.name
                write_whole(elsewhere, content)
            except OSError:
                raise error from None
            return elsewhere

    def save_checkpoint(self, model: MemoryOnPolicyAlgorithm) -> None:
        """Write model.zip during training. Raises DiskError, the last save being untouched."""
        self._replace(self.model, _as_bytes(model))

    def _replace(self, path: Path, content: bytes) -> None:
        try:
            write_whole(path, content)
        except OSError as error:
            if self.model.exists():
                way_out = (
                    f"{self.model} is the last save, and whole. Free space, or copy {self.path} to "
                    "another disk and give --resume the copy"
                )
            else:
                way_out = "free space, or give a --run-dir on another disk"
            raise DiskError(f"cannot write {path}: {error.strerror}; {way_out}") from error


class SaveCheckpoints(BaseCallback):
    """Saves the model every `interval` environment steps, at the end of a rollout.

    A disk that takes no more does not end training: `warn` is told, and the next save is tried.
    """

    def __init__(self, run: RunDirectory, interval: int, warn: Callable[[str], None]) -> None:
        super().__init__()
        self.run, self.interval, self.warn = run, interval, warn
        self._next: int | None = None

    def _on_training_start(self) -> None:
        if self._next is None:  # otherwise another stage of the curriculum begins
            self._next = self.num_timesteps + self.interval

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert self._next is not None
        if self.num_timesteps < self._next:
            return
        self._next = self.num_timesteps + self.interval
        assert isinstance(self.model, MemoryOnPolicyAlgorithm)
        try:
            self.run.save_checkpoint(self.model)
        except DiskError as error:
            self.warn(f"{error}. Training goes on")


def _check_name(path: Path | None) -> None:
    """Raise UserError for a name that config.yaml cannot hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"run_dir = {str(path)!a} has bytes that are no UTF-8; give another --run-dir"
        ) from None


def _as_bytes(model: MemoryOnPolicyAlgorithm) -> bytes:
    buffer = io.BytesIO()
    model.save(buffer)
    return buffer.getvalue()


def _make_new(config: AnyConfig) -> Path:
    """Make a folder under runs/ that no other process made."""
    env = config.env.rpartition(":")[2].rpartition("/")[2]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = Path("runs") / f"{env}-{config.memory}-{config.algo}-seed{config.seed}-{stamp}"
    while True:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:  # of a run begun within the same second
            path = path.with_name(path.name + "+")


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def git_commit() -> str | None:
    """Commit of the checkout this file lies in, marked if files were changed; None without one."""
    root = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None  # installed, in a folder of another project
        return git("describe", "--always", "--abbrev=40", "--dirty=, with changes", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None

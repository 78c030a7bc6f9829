"""Weights & Biases: metrics, configuration, plots and evaluation of a run.

wandb itself is imported when a run is begun, so a run without it does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from .arguments import UserError
from .run_directory import DiskError

if TYPE_CHECKING:
    import wandb


class WandbLog(KVWriter):
    """A run at Weights & Biases as an output of the SB3 logger; steps are environment steps.

    With mode "offline" nothing leaves the machine: the run is written to `folder`/wandb, and
    `wandb sync` uploads it later. Raises UserError if wandb refuses, as without an account online.
    If its service ends later, `warn` is told once and it gets nothing more; metrics.csv has all.
    """

    def __init__(
        self,
        folder: Path,
        mode: Literal["offline", "online"],
        project: str,
        config: Mapping[str, Any],
        warn: Callable[[str], None],
    ) -> None:
        import wandb

        self.warn = warn
        self._finished = False
        self._lost = (wandb.Error, OSError, RuntimeError)  # what a service that ended is told by
        try:
            self.run: wandb.Run = wandb.init(
                mode=mode,
                project=project,
                name=folder.name,
                dir=str(folder),
                config=dict(config),
                reinit="create_new",  # beside any that the process has begun and not ended
                settings=wandb.Settings(
                    silent=True, console="off", save_code=False, x_disable_stats=True
                ),
            )
        except wandb.Error as error:
            if "project name" in str(error):
                way_out = "choose another --wandb-project"
            elif mode == "online":
                way_out = "use --wandb offline, which needs no account, or --wandb disabled"
            else:
                way_out = "use --wandb disabled"
            raise UserError(f"wandb = {mode}: {error}; {way_out}") from None

    @property
    def folder(self) -> Path:
        """The run's own folder, which `wandb sync` takes."""
        return Path(self.run.dir).parent

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Log all values that are numbers."""
        if self._finished:
            return
        values = filter_excluded_keys(key_values, key_excluded, "wandb")
        try:
            self.run.log({k: v for k, v in values.items() if isinstance(v, Real)}, step=step)
        except self._lost as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._finished = True
        self.warn(f"wandb gets nothing more: {error!r}")

    def finish(
        self,
        figures: Mapping[str, Any] | None = None,
        plots: Sequence[Path] = (),
        step: int | None = None,
    ) -> None:
        """End the run, as one that succeeded, with figures of an evaluation in its summary and
        plots as images, logged at `step`, if there are such.

        Raises DiskError if there is no room for the plots, which wandb copies.
        """
        if self._finished:
            return
        import wandb

        try:
            if plots:
                self.run.log({plot.stem: wandb.Image(str(plot)) for plot in plots}, step=step)
        except ConnectionError as error:  # of the service, though an OSError as well
            return self._give_up(error)
        except OSError as error:
            raise DiskError(
                f"cannot write {self.folder}: {error.strerror}; wandb gets nothing more, and the "
                f"pictures are in {plots[0].parent}. Free space, or use --wandb disabled"
            ) from error
        try:
            summary = {f"evaluation/{name}": figure for name, figure in (figures or {}).items()}
            self.run.summary.update(summary)
            self.run.finish()
        except self._lost as error:
            self._give_up(error)
        self._finished = True

    def close(self) -> None:
        """End the run, as failed if `finish` has not been called."""
        if not self._finished:
            try:
                self.run.finish(exit_code=1)
            except self._lost as error:
                self._give_up(error)
            self._finished = True

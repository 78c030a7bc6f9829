"""TensorBoard's files, which a full disk does not let end the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import TensorBoardOutputFormat


class TensorBoardLog(TensorBoardOutputFormat):
    """SB3's logger output. If its files can no longer be written, `warn` is told once and nothing
    more is; metrics.csv has the same figures."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder, self.warn = folder, warn
        try:
            super().__init__(str(folder))
        except OSError as error:
            self.warn(f"cannot write {folder}: {error.strerror}; nothing goes there")
            self.writer, self._is_closed = None, True  # type: ignore[assignment]

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Write a line's figures; `step` is the number of environment steps."""
        if self._is_closed:
            return
        try:
            super().write(key_values, key_excluded, step)
        except OSError as error:
            self.warn(f"cannot write {self.folder}: {error.strerror}; nothing more goes there")
            self._is_closed = True

    def close(self) -> None:
        """Close the files, or leave those that could not be written."""
        try:
            super().close()
        except OSError as error:
            self.warn(f"cannot write {self.folder}: {error.strerror}; its last lines are lost")

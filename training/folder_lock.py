"""A folder that one process at a time writes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
"""The file that is locked. It stays: what counts is whether a process holds it."""


class FolderLock:
    """The sole right to write a folder, which ends with the process, however that ends.

    Where there are no locks, as on Windows and some network disks, everyone has it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file: int | None = None

    def take(self) -> bool:
        """Take the right. False if another has it."""
        if sys.platform == "win32":
            return True
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        except OSError:  # a disk without locks, or one that takes no files, as is said elsewhere
            self.release()
        return True

    def release(self) -> None:
        """Give the right back, if it was taken."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

"""metrics.csv: one line per rollout, one column per logger key."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from .whole_file import write_whole

STEPS = "time/total_timesteps"
"""The key that every line has: environment steps taken so far."""

LENGTH = "rollout/ep_len_mean"
"""SB3's key for the mean length of episodes, in lines written after one has ended."""

Row = dict[str, Any]


class MetricsCsv(KVWriter):
    """An SB3 logger output that keeps its lines and survives a full disk.

    A key that is new gets a column at the right, in order of appearance, and the file is written
    anew. SB3's own `CSVOutputFormat` orders new columns at random, and loses the lines of a run
    that is gone on with. If a line cannot be written it is kept, and all lines are written as soon
    as that is possible again; `warn` is told once.
    """

    def __init__(self, path: Path, rows: list[Row], warn: Callable[[str], None]) -> None:
        """Begin with `rows`, the lines of the run so far; empty for a new run."""
        self.path, self.rows, self.warn = path, rows, warn
        self.keys = list(dict.fromkeys(key for row in rows for key in row))
        self._file: TextIO | None = None
        # of a run gone on with from an earlier save the file has later lines
        self._differs = bool(rows) and len(read_metrics(path)) != len(rows)

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Add a line. `step` is the number of environment steps."""
        row = {STEPS: step, **filter_excluded_keys(key_values, key_excluded, "csv")}
        self.rows.append(row)
        new = [key for key in row if key not in self.keys]
        self.keys += new
        try:
            if new or self._file is None:
                self._write_all()
            else:
                csv.DictWriter(self._file, self.keys).writerow(row)
                self._file.flush()
        except OSError as error:
            self.warn(f"cannot write {self.path}: {error.strerror}; its lines are kept in memory")
            self.warn = lambda _: None
            self._file, self._differs = None, True
        except BaseException:  # a second Ctrl-C: the file may lack the new columns
            self._file, self._differs = None, True
            raise

    def write_copy(self, path: Path) -> None:
        """Write all lines, those that are only in memory as well, elsewhere. Raises OSError."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.keys)
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(path, text.getvalue().encode())

    def _write_all(self) -> None:
        self.write_copy(self.path)
        if self._file is not None:
            self._file.close()
        self._file, self._differs = self.path.open("a", newline="", encoding="utf-8"), False

    def close(self) -> None:
        """Close the file. Lines that could not be written are tried once more."""
        if self._differs:
            with contextlib.suppress(OSError):
                self._write_all()
        if self._file is not None:
            self._file.close()
            self._file = None


def read_metrics(path: Path, until: float = float("inf")) -> list[Row]:
    """The lines of a metrics.csv as numbers, cells that are empty left out, up to step `until`.

    No lines if there is no file. A last line that was cut off, as by a full disk, is left out.

    Raises: ValueError, naming the file, for one that holds anything else.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1].splitlines()
        rows = [
            {key: float(cell) for key, cell in row.items() if cell} for row in csv.DictReader(whole)
        ]
        return [row for row in rows if row[STEPS] <= until]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): mend it, or move it away to go "
            "on without what it says of the run so far"
        ) from error

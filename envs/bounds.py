"""Arguments that have to be whole numbers, or finite: else episodes may never end."""

from __future__ import annotations

import math
from typing import SupportsFloat

import numpy as np


def check_whole(**values: object) -> None:
    """Raise ValueError for the first of `values` that is no whole number; True and 2.0 are none."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name} = {value!r} must be a whole number, an int")


def check_tile_size(tile_size: int) -> None:
    """Raise ValueError unless pictures of so many pixels per cell can be drawn."""
    check_whole(tile_size=tile_size)
    if tile_size < 1:
        raise ValueError(f"tile_size = {tile_size} is below 1 pixel per cell; use 1 or more")


def check_render_mode(render_mode: str | None, *modes: str) -> None:
    """Raise ValueError unless `render_mode` is one of `modes` or None."""
    if render_mode not in (None, *modes):
        known = " nor ".join(map(repr, modes))
        raise ValueError(f"render_mode = {render_mode!r} is neither None nor {known}")


def check_finite(**values: SupportsFloat) -> None:
    """Raise ValueError for the first of `values` that is not a finite number."""
    for name, value in values.items():
        is_number = isinstance(value, int | float | np.integer | np.floating)
        if not is_number or not math.isfinite(value):
            raise ValueError(f"{name} = {value!r} must be a finite number")

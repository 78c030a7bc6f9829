"""What the grid worlds show: the space of their observations, and the bounds of the view."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX


def view_space(view_size: int) -> spaces.Box:
    """The space of flattened views. Shape (view_size * view_size * 3,), uint8.

    Flat because SB3's checker takes every three-dimensional array for a picture and warns about
    pictures smaller than 36 x 36.
    """
    largest = [max(table.values()) for table in (OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX)]
    high = np.tile(np.array(largest, np.uint8), view_size * view_size)
    return spaces.Box(low=np.zeros_like(high), high=high, dtype=np.uint8)


def check_view_size(view_size: int) -> None:
    """Raise ValueError unless the agent can stand in the middle of the view's last row."""
    if view_size < 3 or view_size % 2 == 0:
        raise ValueError(
            f"view_size = {view_size} is not an odd number of at least 3; use 3, 5 or 7: the agent "
            "stands in the middle of the view's last row"
        )

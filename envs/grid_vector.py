"""Grid worlds for many environments at once, in array arithmetic: what all of them share.

Every environment owns one row of a padded map of cell codes. A position is an index into that row,
a heading adds a fixed stride to it, and a view is the position plus fixed offsets per heading. So
a step is a handful of NumPy calls, and only environments that reset run Python of their own.

B environments, M cells of a map, C cells of a view, E environments whose episode ended.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from minigrid.core.constants import COLOR_TO_IDX, DIR_TO_VEC, OBJECT_TO_IDX
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray

WALL, EMPTY = 0, 1
"""The first two cell codes of every map."""

WALL_AND_EMPTY = [
    (OBJECT_TO_IDX["wall"], COLOR_TO_IDX["grey"], 0),
    (OBJECT_TO_IDX["empty"], 0, 0),
]
"""MiniGrid's (object, colour, state) of the first two cell codes."""

TURN = np.array([-1, 1, 0])
"""What each action adds to the heading."""

FORWARD = 2

Infos = dict[str, Any]


class GridVectorEnv(VectorEnv[NDArray[np.uint8], NDArray[np.int64], NDArray[Any]]):
    """`num_envs` grid worlds in one process, equal step by step to as many single forms.

    Environment i seeded with s plays the episodes of a single form seeded with s + i, for any
    number of episodes. Episodes end and begin within one step (`AutoresetMode.SAME_STEP`): the last
    observation and info of an ended episode are in `infos["final_obs"]` and `infos["final_info"]`,
    in the form of gymnasium's `SyncVectorEnv`.

    A subclass lays out an episode's map and says what an action does, what an observation is marked
    as, and how it is drawn. Whatever pays is a success; episodes end when the task says so or, as
    a loss, at their step limit.

    Shapes: observations (B, view_size * view_size * 3) uint8; rewards (B,) float64; terminations
    and truncations (B,) bool; actions (B,) integers. Arrays returned are the caller's to keep.

    Raises: ValueError for arguments out of bounds, a `render_mode` other than "rgb_array" or None,
    and actions that do not exist; gymnasium's ResetNeeded for a step before the first reset.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": MiniGridEnv.metadata["render_fps"],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int,
        single_observation_space: spaces.Box,
        view_size: int,
        n_columns: int,
        n_rows: int,
        encoding: NDArray[np.uint8],
        render_mode: str | None,
    ) -> None:
        """`n_columns` and `n_rows`: of the largest map; `encoding`: MiniGrid's triple per code."""
        if num_envs < 1:
            raise ValueError(f"num_envs = {num_envs} is below 1; use 1 or more")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"render_mode = {render_mode!r} is neither None nor 'rgb_array'; for a window, "
                "use the single form (gymnasium.make)"
            )
        self.num_envs = num_envs
        self.view_size = view_size
        self.render_mode = render_mode
        self.single_observation_space = single_observation_space
        self.single_action_space = spaces.Discrete(3)
        self.observation_space = batch_space(single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self._encoding = encoding
        self._lay_tables(n_rows)
        self._envs_B = np.arange(num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._map_BM = np.zeros((num_envs, (n_columns + 2 * self._margin) * self._column), np.uint8)
        self._position_B = np.zeros(num_envs, np.int64)
        self._heading_B = np.zeros(num_envs, np.int64)
        self._steps_B = np.zeros(num_envs, np.int64)
        self._limit_B = np.zeros(num_envs, np.int64)

    # ------------------------------------------------------------------------ what a task defines

    @abstractmethod
    def _begin_episode(self, i: int, generator: np.random.Generator) -> None:
        """Draw an episode for environment `i`: write map, position, heading and step limit."""

    @abstractmethod
    def _play(self, action_B: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Take the actions. Returns: where a reward of 1 is earned, where the episode ends."""

    @abstractmethod
    def _marks(self, code_BC: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Number of the cue and of the decision the observations are, -1 for none."""

    def _tallies(self) -> dict[str, NDArray[np.int64]]:
        """What has been counted in the running episodes, by name; empty if nothing is."""
        return {}

    @abstractmethod
    def _paint(self, i: int) -> NDArray[np.uint8]:
        """Picture of environment `i`."""

    # ----------------------------------------------------------------------- gymnasium's interface

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.uint8], Infos]:
        """Start an episode in every environment.

        A `seed` s seeds environment i with s + i; a list holds one seed per environment, None
        leaving that one's generator as it is. `options["reset_mask"]` (B,) bool restricts the
        reset to some environments.
        """
        mask_B = np.ones(self.num_envs, np.bool_)
        if options is not None and "reset_mask" in options:
            mask_B = np.asarray(options["reset_mask"])
            if mask_B.shape != (self.num_envs,) or mask_B.dtype != np.bool_ or not mask_B.any():
                raise ValueError(
                    f"options['reset_mask'] = {mask_B!r} is not a bool array of shape "
                    f"({self.num_envs},) with a True in it; leave it out to reset all"
                )
        seeds = self._seed_list(seed)
        for i in np.flatnonzero(mask_B).tolist():
            if seeds[i] is not None:
                self._generators[i], _ = seeding.np_random(seeds[i])
            self._begin(i)
        obs_BO, code_BC = self._observe(self._envs_B)
        return obs_BO, self._memory_info(code_BC, mask_B)

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any], NDArray[Any], Infos]:
        """Take one action in every environment; environments that end begin anew at once."""
        action_B = self._checked(actions)
        success_B, ended_B = self._play(action_B)
        self._steps_B += 1
        ended_B = ended_B | (self._steps_B >= self._limit_B)

        obs_BO, code_BC = self._observe(self._envs_B)
        infos: Infos = {}
        if ended_B.any():
            infos = self._final_infos(obs_BO, code_BC, success_B, ended_B)
            ended_E = np.flatnonzero(ended_B)
            for i in ended_E.tolist():
                self._begin(i)
            obs_BO[ended_E], code_BC[ended_E] = self._observe(ended_E)
        infos |= self._memory_info(code_BC, np.ones(self.num_envs, np.bool_))
        return obs_BO, success_B.astype(np.float64), ended_B, np.zeros_like(ended_B), infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Pictures of all environments, each as the single form draws it; None without a mode."""
        if self.render_mode is None:
            return None
        return tuple(self._paint(i) for i in range(self.num_envs))

    # ---------------------------------------------------------------------- maps, positions, views

    def _lay_tables(self, n_rows: int) -> None:
        """Work out what turns cells, headings and view cells into indices of a map's row."""
        size = self.view_size
        self._margin = size - 1  # a view reaches this far beyond the agent: no index needs a check
        self._column = n_rows + 2 * self._margin  # indices from a cell to its eastern neighbour
        stride = np.array([self._column, 1])
        self._stride_by_heading = np.array([vector @ stride for vector in DIR_TO_VEC])

        right_by_heading = np.roll(self._stride_by_heading, -1)
        # in C order of a view: its first axis runs left to right, its second from far to near
        to_right_C = np.repeat(np.arange(size), size) - size // 2
        ahead_C = size - 1 - np.tile(np.arange(size), size)
        self._offset_by_heading_C = (
            right_by_heading[:, None] * to_right_C + self._stride_by_heading[:, None] * ahead_C
        )
        self._own_cell = int(np.flatnonzero((to_right_C == 0) & (ahead_C == 0))[0])

    def _index(self, column: Any, row: Any) -> Any:
        """Index of a cell in a map's row; of many cells for arrays."""
        return (column + self._margin) * self._column + row + self._margin

    def _cell(self, index: int) -> tuple[int, int]:
        """Column and row of an index."""
        column, row = divmod(index, self._column)
        return column - self._margin, row - self._margin

    def _begin(self, i: int) -> None:
        generator = self._generators[i]
        if generator is None:
            generator, _ = seeding.np_random()
            self._generators[i] = generator
        self._begin_episode(i, generator)
        self._steps_B[i] = 0

    def _observe(self, envs: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Observations of the environments `envs`, flattened, and the cell codes of their views."""
        cell_BC = self._position_B[envs, None] + self._offset_by_heading_C[self._heading_B[envs]]
        code_BC = self._map_BM[envs[:, None], cell_BC]
        # MiniGrid shows the agent's own cell as empty, whatever lies there
        code_BC[:, self._own_cell] = EMPTY
        return self._encoding[code_BC].reshape(len(envs), -1), code_BC

    # ------------------------------------------------------------------------------------- infos

    def _memory_info(self, code_BC: NDArray[np.uint8], mask_B: NDArray[np.bool_]) -> Infos:
        """The marks of the observations with these codes, where `mask_B` says there are any."""
        cue_B, decision_B = self._marks(code_BC)
        marks = _masked(mask_B, "cue", cue_B) | _masked(mask_B, "decision", decision_B)
        return {"memory": marks, "_memory": mask_B.copy()}

    def _final_infos(
        self,
        obs_BO: NDArray[np.uint8],
        code_BC: NDArray[np.uint8],
        success_B: NDArray[np.bool_],
        ended_B: NDArray[np.bool_],
    ) -> Infos:
        """Last observation and info of the episodes that ended, as `SyncVectorEnv` gives them."""
        final_obs_B = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended_B):
            final_obs_B[i] = obs_BO[i].copy()
        final_info = self._memory_info(code_BC, ended_B)
        final_info |= _masked(ended_B, "is_success", success_B)
        tallies: Infos = {}
        for name, count_B in self._tallies().items():
            tallies |= _masked(ended_B, name, count_B)
        if tallies:
            final_info |= {"tallies": tallies, "_tallies": ended_B.copy()}
        return {
            "final_obs": final_obs_B,
            "_final_obs": ended_B.copy(),
            "final_info": final_info,
            "_final_info": ended_B.copy(),
        }

    # ------------------------------------------------------------------------------------- checks

    def _seed_list(self, seed: int | list[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(
                f"seed has {len(seed)} entries for num_envs = {self.num_envs}; "
                "pass one per environment, or one integer for all"
            )
        return list(seed)

    def _checked(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self._limit_B.all():
            raise ResetNeeded("step() before the first reset(); call reset(seed=...) first")
        action_B = np.asarray(actions)
        if action_B.shape != (self.num_envs,):
            raise ValueError(
                f"actions have shape {action_B.shape}, not ({self.num_envs},); "
                "pass one action per environment"
            )
        if action_B.min() < 0 or action_B.max() > FORWARD:
            raise ValueError(
                f"actions = {action_B} hold other values than 0 (turn left), 1 (turn right), "
                "2 (move forward)"
            )
        return action_B


def _masked(mask_B: NDArray[np.bool_], key: str, value_B: NDArray[Any]) -> Infos:
    """An info in gymnasium's vector form: zero where `mask_B` is False, the mask beside it."""
    return {key: np.where(mask_B, value_B, np.zeros((), value_B.dtype)), f"_{key}": mask_B.copy()}

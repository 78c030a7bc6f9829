"""Corridor for many environments at once: the same game as `CorridorEnv`, in array arithmetic.

Every environment owns one row of a padded map of cell codes. A position is an index into that row,
a heading adds a fixed stride to it, and a view is the position plus fixed offsets per heading. So
a step is a handful of NumPy calls, and only environments that reset run Python of their own.

B environments, M cells of a map, C cells of a view, E environments whose episode ended.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from minigrid.core.constants import COLOR_TO_IDX, DIR_TO_VEC, OBJECT_TO_IDX, TILE_PIXELS
from numpy.typing import NDArray

from .corridor import (
    COLOURS,
    CUE_CELL,
    EAST,
    HEIGHT,
    MIN_LENGTH,
    START_CELL,
    WALKWAY,
    CorridorEnv,
    Episode,
    check_arguments,
    draw_episode,
    step_limit,
    view_space,
)

# cell codes; the code of a ball or goal is its base plus the colour's place in COLOURS
WALL, EMPTY, BALL, GOAL = 0, 1, 2, 4

ENCODING = np.array(
    [
        (OBJECT_TO_IDX["wall"], COLOR_TO_IDX["grey"], 0),
        (OBJECT_TO_IDX["empty"], 0, 0),
        *[(OBJECT_TO_IDX["ball"], COLOR_TO_IDX[colour], 0) for colour in COLOURS],
        *[(OBJECT_TO_IDX["goal"], COLOR_TO_IDX[colour], 0) for colour in COLOURS],
    ],
    np.uint8,
)
"""MiniGrid's (object, colour, state) of every cell code."""

TURN = np.array([-1, 1, 0])
"""What each action adds to the heading."""

FORWARD = 2

Infos = dict[str, Any]


class CorridorVectorEnv(VectorEnv[NDArray[np.uint8], NDArray[np.int64], NDArray[Any]]):
    """`num_envs` corridors in one process, equal step by step to as many `CorridorEnv`.

    See `CorridorEnv` for the task, the spaces and the arguments. Environment i seeded with s plays
    the episodes of a `CorridorEnv` seeded with s + i, for any number of episodes. Episodes end and
    begin within one step (`AutoresetMode.SAME_STEP`): the last observation and info of an ended
    episode are in `infos["final_obs"]` and `infos["final_info"]`, in the form of gymnasium's
    `SyncVectorEnv`.

    Shapes: observations (B, view_size * view_size * 3) uint8; rewards (B,) float64; terminations
    and truncations (B,) bool; actions (B,) integers. Arrays returned are the caller's to keep.

    Raises: ValueError for arguments out of bounds, a `render_mode` other than "rgb_array" or None,
    and actions that do not exist; gymnasium's ResetNeeded for a step before the first reset.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": CorridorEnv.metadata["render_fps"],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        min_length: int = MIN_LENGTH,
        max_length: int = 200,
        view_size: int = 3,
        shuffle_goals: bool = False,
        render_mode: str | None = None,
        tile_size: int = TILE_PIXELS,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs = {num_envs} is below 1; use 1 or more")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"render_mode = {render_mode!r} is neither None nor 'rgb_array'; for a window, "
                "use the single form (gymnasium.make)"
            )
        check_arguments(min_length, max_length, view_size)
        self.num_envs = num_envs
        self.min_length = min_length
        self.max_length = max_length
        self.view_size = view_size
        self.shuffle_goals = shuffle_goals
        self.render_mode = render_mode
        self.tile_size = tile_size
        self.single_observation_space = view_space(view_size)
        self.single_action_space = spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self._lay_tables()
        self._envs_B = np.arange(num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._episodes = [Episode(min_length, 0, 0)] * num_envs
        self._map_BM = np.zeros((num_envs, (max_length + 2 * view_size) * self._column), np.uint8)
        self._position_B = np.zeros(num_envs, np.int64)
        self._heading_B = np.zeros(num_envs, np.int64)
        self._junction_B = np.zeros(num_envs, np.int64)
        self._paying_goal_B = np.zeros(num_envs, np.int64)
        self._steps_B = np.zeros(num_envs, np.int64)
        self._limit_B = np.zeros(num_envs, np.int64)
        self._painter: CorridorEnv | None = None

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
            self._begin_episode(i)
        obs_BO, seen_BC = self._observe(self._envs_B)
        return obs_BO, self._memory_info(seen_BC, self._position_B, mask_B)

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any], NDArray[Any], Infos]:
        """Take one action in every environment; environments that end begin anew at once."""
        action_B = self._checked(actions)
        ahead_B = self._position_B + self._stride_by_heading[self._heading_B]
        code_B = self._map_BM[self._envs_B, ahead_B]
        moves_B = (action_B == FORWARD) & ((code_B == EMPTY) | (code_B >= GOAL))

        turned_B = (self._heading_B + TURN[action_B]) % 4
        beside_B = self._map_BM[self._envs_B, self._position_B + self._stride_by_heading[turned_B]]
        self._heading_B = np.where(beside_B >= GOAL, turned_B, self._heading_B)
        self._position_B = np.where(moves_B, ahead_B, self._position_B)
        self._steps_B += 1
        reached_B = moves_B & (code_B >= GOAL)
        success_B = reached_B & (code_B == self._paying_goal_B)

        obs_BO, code_BC = self._observe(self._envs_B)
        infos: Infos = {}
        ended_B = reached_B | (self._steps_B >= self._limit_B)
        if ended_B.any():
            infos = self._final_infos(obs_BO, code_BC, success_B, ended_B)
            ended_E = np.flatnonzero(ended_B)
            for i in ended_E.tolist():
                self._begin_episode(i)
            obs_BO[ended_E], code_BC[ended_E] = self._observe(ended_E)
        infos |= self._memory_info(code_BC, self._position_B, np.ones(self.num_envs, np.bool_))
        return obs_BO, success_B.astype(np.float64), ended_B, np.zeros_like(ended_B), infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Pictures of all environments, each as `CorridorEnv` draws it; None without a mode."""
        if self.render_mode is None:
            return None
        if self._painter is None:
            self._painter = CorridorEnv(
                self.min_length,
                self.max_length,
                self.view_size,
                render_mode="rgb_array",
                tile_size=self.tile_size,
            )
        frames = []
        for i, episode in enumerate(self._episodes):
            self._painter.lay_out(episode)
            column, row = divmod(int(self._position_B[i]), self._column)
            self._painter.agent_pos = (column - self._margin, row - self._margin)
            self._painter.agent_dir = int(self._heading_B[i])
            frames.append(self._painter.render())  # type: ignore[no-untyped-call]
        return tuple(frames)

    def _lay_tables(self) -> None:
        """Work out what turns cells, headings and view cells into indices of a map's row."""
        size = self.view_size
        self._margin = size - 1  # a view reaches this far beyond the agent: no index needs a check
        self._column = HEIGHT + 2 * self._margin  # indices from a cell to its eastern neighbour
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

    def _index(self, column: int, row: int) -> int:
        return (column + self._margin) * self._column + row + self._margin

    def _begin_episode(self, i: int) -> None:
        """Draw an episode for environment `i`, write its map and put the agent at its start."""
        generator = self._generators[i]
        if generator is None:
            generator, _ = seeding.np_random()
            self._generators[i] = generator
        episode = draw_episode(generator, self.min_length, self.max_length, self.shuffle_goals)
        length = episode.length

        cells_M = self._map_BM[i]
        cells_M[:] = WALL
        first, junction = self._index(*START_CELL), self._index(length, WALKWAY)
        cells_M[first : junction + 1 : self._column] = EMPTY
        cells_M[self._index(*CUE_CELL)] = BALL + episode.cue
        cells_M[self._index(length, WALKWAY - 1)] = GOAL + episode.upper_goal
        cells_M[self._index(length, WALKWAY + 1)] = GOAL + 1 - episode.upper_goal

        self._episodes[i] = episode
        self._position_B[i] = first
        self._heading_B[i] = EAST
        self._junction_B[i] = junction
        self._paying_goal_B[i] = GOAL + episode.cue
        self._steps_B[i] = 0
        self._limit_B[i] = step_limit(length)

    def _observe(self, envs: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Observations of the environments `envs`, flattened, and the cell codes of their views."""
        cell_BC = self._position_B[envs, None] + self._offset_by_heading_C[self._heading_B[envs]]
        code_BC = self._map_BM[envs[:, None], cell_BC]
        # MiniGrid shows the agent's own cell as empty, on a goal as well
        code_BC[:, self._own_cell] = EMPTY
        return ENCODING[code_BC].reshape(len(envs), -1), code_BC

    def _memory_info(
        self, code_BC: NDArray[np.uint8], position_B: NDArray[np.int64], mask_B: NDArray[np.bool_]
    ) -> Infos:
        """The marks of the observations with these codes, where `mask_B` says there are any."""
        sees_cue_B = ((code_BC == BALL) | (code_BC == BALL + 1)).any(1)
        at_junction_B = position_B == self._junction_B
        marks = _masked(mask_B, "cue", np.where(sees_cue_B, 0, -1))
        marks |= _masked(mask_B, "decision", np.where(at_junction_B, 0, -1))
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
        final_info = self._memory_info(code_BC, self._position_B, ended_B)
        final_info |= _masked(ended_B, "is_success", success_B)
        return {
            "final_obs": final_obs_B,
            "_final_obs": ended_B.copy(),
            "final_info": final_info,
            "_final_info": ended_B.copy(),
        }

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

"""Did the memory keep what was needed? Cues, decisions, and which of them met."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expire_span.memory import LiveMemories

from .vec_env import is_whole

TALLIED_EPISODES = 100
"""Episodes over which the logged tallies are taken, as SB3 takes its means."""

MEASURED = ("cue_recall", "precision", "cue_lifetime", "other_lifetime")
"""What is logged under retention/ for every environment that marks cues."""

LONGEST_NAME = 30
"""Letters of a tally's name: of two that agree in more, SB3's table of a log makes an error."""


def episode_tallies(info: dict[str, Any]) -> dict[str, int]:
    """What the environment counted in an episode, `info["tallies"]` of its last step, by name.

    Raises ValueError for what is no dict, no name or no whole number, and for names that would not
    be logged as they are.
    """
    tallies = info.get("tallies", {})
    if not isinstance(tallies, dict) or not all(isinstance(name, str) for name in tallies):
        raise ValueError(
            f'info["tallies"] = {tallies!r} tallies nothing: it must be a dict of whole numbers by '
            'name, as in {"apples": 3}. An environment that uses the entry for something else '
            "needs a wrapper that renames it"
        )
    for name, count in tallies.items():
        _check_name(name)
        if not is_whole(count):
            raise ValueError(
                f'info["tallies"] has {name} = {count!r}, which must be a whole number; of an '
                f"amount, count its parts and give the whole as {name}_of"
            )
    return {name: int(count) for name, count in tallies.items()}


def _check_name(name: str) -> None:
    """Raise ValueError for a name that something else is logged under, that gymnasium's vector
    environments give to masks, or that a table would cut off."""
    if name in MEASURED:
        reason = f"which retention/{name} is measured under already"
    elif name.startswith("_"):
        reason = "which begins with _, as the masks of gymnasium's vector environments"
    elif len(name.removesuffix("_of")) > LONGEST_NAME:
        reason = f"whose {len(name.removesuffix('_of'))} letters are above {LONGEST_NAME}"
    else:
        return
    raise ValueError(f'info["tallies"] has the name {name!r}, {reason}; give it another name')


def tally_shares(episodes: Collection[dict[str, int]]) -> dict[str, float]:
    """Sum of `name` over that of `name_of`, or the mean per episode where there is no `name_of`."""
    counts: Counter[str] = Counter()
    for tallies in episodes:
        counts.update(tallies)
    return {
        name: count / max(1, counts.get(f"{name}_of", len(episodes)))
        for name, count in counts.items()
        if not (name.endswith("_of") and name.removesuffix("_of") in counts)
    }


class RetentionTracker:
    """Follows the cues of every environment's episode and looks for them at the decisions.

    Reads the marks environments leave in `info["memory"]`: {"cue": k, "decision": j}, where k >= 0
    says that the observation shows cue k of the episode, and j >= 0 that acting on it needs cue j;
    -1 says neither. A cue shown over several steps counts as kept if any of them is; a decision
    whose cue the agent has not seen in this episode is no test of memory and is not counted.
    """

    def __init__(self, n_envs: int) -> None:
        self.step_B = np.full(n_envs, -1)
        self.cue_steps: list[dict[int, list[int]]] = [{} for _ in range(n_envs)]
        self.decisions = 0
        self.recalled = 0
        self.marked = False
        """Whether the environments mark anything."""
        self.episodes: deque[dict[str, int]] = deque(maxlen=TALLIED_EPISODES)

    def observe(
        self,
        starts_B: NDArray[np.bool_],
        cue_B: NDArray[np.int64],
        decision_B: NDArray[np.int64],
        live: LiveMemories | None,
    ) -> None:
        """Take in one step: the marks of its observation and what could be read at it."""
        self.step_B = np.where(starts_B, 0, self.step_B + 1)
        for i in np.flatnonzero(starts_B):
            self.cue_steps[i] = {}
        self.marked = self.marked or bool((cue_B >= 0).any() or (decision_B >= 0).any())
        for i in np.flatnonzero(cue_B >= 0):
            self.cue_steps[i].setdefault(int(cue_B[i]), []).append(int(self.step_B[i]))
        deciding: list[int] = np.flatnonzero(decision_B >= 0).tolist()
        if live is None or not deciding:
            return
        age_BLSc = live.step_ages_BLSc().cpu().numpy()
        for env in deciding:
            steps = self.cue_steps[env].get(int(decision_B[env]))
            if steps is not None:
                self.decisions += 1
                self.recalled += bool(self._holding_LS(age_BLSc, env, steps).any())

    def count(self, infos: Iterable[dict[str, Any]]) -> None:
        """Take in what environments tallied of the episodes that ended, if they tally anything."""
        self.episodes.extend(episode_tallies(info) for info in infos if "tallies" in info)

    def pop_cue_recall(self) -> float | None:
        """Share of the decisions since the last call whose cue was live; None without any."""
        recall = self.recalled / self.decisions if self.decisions else None
        self.decisions = self.recalled = 0
        return recall

    def precision(self, live: LiveMemories) -> float | None:
        """Share of the memories now live, the present step aside, that are cues of the episode;
        None where nothing is ever marked."""
        if not self.marked:
            return None
        age_BLSc = live.step_ages_BLSc().cpu().numpy()
        past_BLS = np.isfinite(age_BLSc[..., 0]) & (age_BLSc[..., 0] > 0)
        cues = 0
        oldest_B = np.where(np.isfinite(age_BLSc), age_BLSc, 0).max((1, 2, 3), initial=0)
        for i, episode in enumerate(self.cue_steps):
            for cue, shown in episode.items():  # what no memory reaches any more is never asked for
                episode[cue] = [s for s in shown if self.step_B[i] - s <= oldest_B[i]]
            steps = [step for shown in episode.values() for step in shown]
            cues += int((self._holding_LS(age_BLSc, i, steps) & past_BLS[i]).sum())
        return cues / int(past_BLS.sum()) if past_BLS.any() else None

    def _holding_LS(
        self, age_BLSc: NDArray[np.float32], env: int, steps: list[int]
    ) -> NDArray[np.bool_]:
        """The slots that hold one of these steps of the environment's episode."""
        ages = self.step_B[env] - np.array(steps, dtype=np.int64)
        return np.asarray(np.isin(age_BLSc[env], ages).any(-1))

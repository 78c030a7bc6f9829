"""What `MemoryPPO` and `MemoryA2C` share: their options, and collecting rollouts with a memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from expire_span.memory import State, map_state, select_envs

from .advantage_scale import LEAST_SHARE, AdvantageScale, SolvedSign
from .checks import check_finite_rewards, check_observations, check_return_size, check_said
from .environments import Playable, playable_env
from .episode_returns import EpisodeReturns, episode_success, is_monitored
from .extractors import ObservationExtractor
from .learning import LearningAlgorithm
from .option_checks import check_advantage_options, check_bounds, check_sb3_options, check_seed
from .policy import MemoryActorCriticPolicy
from .policy_names import POLICY_ALIASES, policy_class
from .retention import RetentionTracker
from .return_scale import ReturnScale
from .rollout import MemoryRolloutBuffer, check_buffer_class, cut_episodes
from .spaces import SUPPORTED_SPACES
from .span_control import SPAN_DEFAULTS, SpanCoef, UseSign, check_span_options, make_span_control
from .vec_env import read_marks


class MemoryOnPolicyAlgorithm(LearningAlgorithm):
    """SB3's on-policy loop with a memory that lasts for an episode.

    Takes what SB3's `OnPolicyAlgorithm` takes, and:

    :param memory: name of the memory, one of `expire_span.memory.MEMORIES`
    :param memory_kwargs: its options, the fields of its config dataclass
    :param span_coef: weight alpha of the span loss, or "auto": press only while the return allows
    :param target_live: with "auto", mean live memories per layer below which nothing is pressed; a
        number, or a function of the share of the training that is left, as for `learning_rate`
    :param use_by: with "auto", which memories are held: those that get "attention", or those with
        "influence" on the action taken, which are fewer
    :param prediction_coef: weight of the loss of predicting the next observation, which teaches the
        memory what to look up where rewards are rare; 0 predicts nothing
    :param scale_ent_coef: shrink `ent_coef` with the advantages, as the learning rate is: where
        rewards are rare the entropy bonus would outweigh them
    :param min_lr_share: least share of `learning_rate` that is left as the advantages shrink; 1
        leaves it to the schedule
    :param solved_by: what shrinks it: the "advantages" alone, or also how near the recent "returns"
        are to the best
    :param n_envs: environments to make when `env` is an id (16 unless given)
    :param rescue_path: where the model is saved if training must stop for a value not finite;
        numbered if there is such a file already

    The memory is kept per environment from rollout to rollout; the state at a rollout's start is
    all that learning needs to unroll it again. Timeouts are bootstrapped from the memory of the
    episode that was cut.

    Raises: ValueError for unknown names and spaces or numbers out of bounds; `NonFiniteError` from
    `learn` for an observation, reward or loss that is not finite, with the model saved.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = POLICY_ALIASES  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[MemoryActorCriticPolicy],
        env: Playable | None,
        learning_rate: float | Schedule,
        *,
        memory: str = "expire-span",
        memory_kwargs: dict[str, Any] | None = None,
        span_coef: SpanCoef = "auto",
        target_live: float | Schedule | None = None,
        use_by: UseSign = "attention",
        prediction_coef: float = 0.0,
        scale_ent_coef: bool = False,
        min_lr_share: float = LEAST_SHARE,
        solved_by: SolvedSign = "returns",
        n_envs: int | None = None,
        rescue_path: str = "rescued_model.zip",
        policy_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        **kwargs: Any,
    ) -> None:
        seed = check_seed(seed)
        env = playable_env(env, n_envs, seed)
        self.span_coef, self.target_live, self.use_by = span_coef, target_live, use_by
        self.advantage_scale, self.return_scale = AdvantageScale(), ReturnScale()
        self.begin_task()
        check_span_options(memory, vars(self))
        self.prediction_coef = prediction_coef
        self.scale_ent_coef, self.min_lr_share = scale_ent_coef, min_lr_share
        self.solved_by = solved_by
        self.rescue_path = rescue_path
        # without a seed, one that follows numpy's global numbers, which a script may have seeded
        order_seed = np.random.randint(2**32, dtype=np.uint32) if seed is None else seed
        self._rng = np.random.default_rng(order_seed)
        self._last_marks: tuple[np.ndarray, np.ndarray] | None = None
        self._tracker: RetentionTracker | None = None
        self._returns: EpisodeReturns | None = None
        own: dict[str, Any] = {"memory": memory, "memory_kwargs": dict(memory_kwargs or {})}
        own["predicts"] = prediction_coef > 0
        if twice := own.keys() & (policy_kwargs or {}).keys():
            raise TypeError(
                f"policy_kwargs has {', '.join(sorted(twice))}; give memory, memory_kwargs and "
                "prediction_coef to the algorithm itself"
            )
        policy_kwargs = {**own, **(policy_kwargs or {})}
        super().__init__(
            policy_class(policy),
            env,  # type: ignore[arg-type]
            learning_rate,
            policy_kwargs=policy_kwargs,
            seed=seed,
            rollout_buffer_class=rollout_buffer_class or MemoryRolloutBuffer,
            supported_action_spaces=SUPPORTED_SPACES,
            **kwargs,
        )

    def _setup_model(self) -> None:
        """SB3's, which making an agent and loading one both end with."""
        if not hasattr(self, "observation_space"):
            raise ValueError("env = None: an agent is made for an environment; give it or its id")
        self._check_options()
        super()._setup_model()

    def _check_options(self) -> None:
        """Raise ValueError for numbers out of bounds, and for options that do not go together."""
        check_bounds(self)
        check_sb3_options(self)
        check_buffer_class(self.rollout_buffer_class)
        check_advantage_options(
            self.scale_ent_coef, self.min_lr_share, self.solved_by, self.normalize_advantage
        )

    # ------------------------------------------------------------------------------ collecting

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Act for `n_rollout_steps` steps in every environment. False if a callback says stop."""
        assert isinstance(rollout_buffer, MemoryRolloutBuffer)
        assert self._last_state is not None and self._tracker is not None
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        self._tell_progress()
        self._last_state = self.policy.memory.shorten(self._last_state)
        rollout_buffer.initial_state = self._last_state
        callback.on_rollout_start()
        values_T, log_probs_T = [], []
        for n_steps in range(n_rollout_steps):
            self.draw_noise(env.num_envs, n_steps)
            obs_tensor = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
            starts, marks = self._last_episode_starts, self._last_marks
            assert starts is not None and marks is not None
            step = self.policy.act(obs_tensor, self._last_state, self._to_tensor(starts))
            self._tracker.observe(starts, *marks, self._live(step.state))
            actions = step.actions.cpu().numpy()
            clipped_actions = self.policy.to_env_actions(actions)
            new_obs, rewards, dones, infos = env.step(clipped_actions)
            rewards = np.array(rewards, np.float32)  # a copy: what timeouts cut off is added to it
            self.num_timesteps += env.num_envs
            check_finite_rewards(rewards, self.num_timesteps)
            check_observations(self.observation_space, new_obs, self.num_timesteps)
            values, log_probs = step.values_B[:, None], step.log_prob_B  # for callbacks, as in SB3
            callback.update_locals(locals())
            goes_on = callback.on_step()
            self._count_episodes(rewards, dones, infos)
            self._bootstrap_timeouts(rewards, dones, infos, step.state)
            rollout_buffer.add(self._last_obs, actions, rewards, starts, marks[0] >= 0)  # type: ignore[arg-type]
            values_T.append(step.values_B)
            log_probs_T.append(log_probs)
            self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]
            self._last_state = step.state
            self._last_marks = read_marks(env, infos, dones)
            if not goes_on:  # not sooner: the environments have moved on
                return False
        values = self.policy.predict_values(
            obs_as_tensor(self._last_obs, self.device),  # type: ignore[arg-type]
            self._last_state,
            self._to_tensor(dones),
        )
        values_TB, log_probs_TB = torch.stack(values_T), torch.stack(log_probs_T)
        check_said(values_TB, log_probs_TB, self.num_timesteps)
        rollout_buffer.finish(values_TB, log_probs_TB, values[:, 0], dones)
        check_return_size(rollout_buffer.returns, rollout_buffer.rewards, self.num_timesteps)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _count_episodes(
        self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> None:
        """Take in what a step says of the episodes: what SB3 logs, returns and tallies."""
        assert self._returns is not None and self._tracker is not None
        for i in np.flatnonzero(dones):
            episode_success(infos[i])  # SB3 takes anything, and fails when it logs the mean
        self._update_info_buffer(infos, dones)
        normalizer = self._vec_normalize_env
        earned = rewards if normalizer is None else normalizer.get_original_reward()
        self._returns.add(earned, dones, infos)
        self._tracker.count(infos[i] for i in np.flatnonzero(dones))

    def _bootstrap_timeouts(
        self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]], state: State
    ) -> None:
        """Add to the last reward of an episode cut by a time limit what was still to come, seen
        from the memory of that episode."""
        cut, obs = cut_episodes(self.observation_space, infos, dones)
        if not cut:
            return
        check_observations(self.observation_space, obs, self.num_timesteps, cut)
        values_B = self.policy.values_of(
            obs_as_tensor(obs, self.device),
            select_envs(state, torch.as_tensor(cut, device=self.device)),
            torch.zeros(len(cut), dtype=torch.bool, device=self.device),
        )
        rewards[cut] += self.gamma * values_B.cpu().numpy()

    def _to_tensor(self, starts_B: np.ndarray) -> Tensor:
        return torch.as_tensor(starts_B, device=self.device)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        fresh = reset_num_timesteps or self._last_obs is None or self._last_state is None
        if not reset_num_timesteps and self._random_state is not None:
            self._random_state.restore(self.device, self._rng)  # go on as if never stopped
        self._random_state = None
        result = super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if fresh:
            assert self.env is not None
            recent = () if reset_num_timesteps or self._returns is None else self._returns.recent
            self._returns = EpisodeReturns(self.n_envs, is_monitored(self.env), recent)
            check_observations(self.observation_space, self._last_obs, self.num_timesteps)
            if isinstance(self.policy.features_extractor, ObservationExtractor):
                obs_tensor = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
                self.policy.features_extractor.check(obs_tensor)
            self._last_state = self.policy.initial_state(self.n_envs)
            self._last_marks = read_marks(self.env)
            self._tracker = RetentionTracker(self.n_envs)
        else:  # perhaps loaded on another device
            assert self._last_state is not None
            self._last_state = map_state(lambda leaf: leaf.to(self.device), self._last_state)
        return result

    def draw_noise(self, n_envs: int, n_steps: int) -> None:
        """Draw the noise of gSDE, where it is used and is due: once per rollout, or every
        `sde_sample_freq` steps. `n_steps` have been played of each environment."""
        lasts = self.sde_sample_freq if self.sde_sample_freq > 0 else self.n_steps
        if self.use_sde and n_steps % lasts == 0:
            self.policy.reset_noise(n_envs)

    def set_env(self, env: Playable, force_reset: bool = True) -> None:
        """SB3's; `env` may be whatever an agent is made with. Of an id as many are made as the
        agent has, with its seed."""
        n_envs = self.n_envs if isinstance(env, str) else None
        super().set_env(playable_env(env, n_envs, self.seed), force_reset)  # type: ignore[arg-type]

    def _take_changes(self, changes: Collection[str]) -> None:
        super()._take_changes(changes)
        if SPAN_DEFAULTS.keys() & set(changes):
            self.span_control = make_span_control(self.span_coef, self.target_live, self.use_by)
            assert self.policy_kwargs is not None
            check_span_options(self.policy_kwargs["memory"], vars(self))

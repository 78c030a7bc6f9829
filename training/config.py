"""Every option of a training run, as dataclasses. The string under a field is its `--help` text.

`TrainConfig` holds the options of the run itself, and one dataclass each for the algorithm and the
memory, whose types depend on what was chosen. `arguments.parse` turns a command line into one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import tyro
from stable_baselines3.common.utils import LinearSchedule
from tyro.constructors import PrimitiveConstructorSpec

from expire_span.agents import MemoryA2C, MemoryPPO
from expire_span.agents.a2c import RMS_PROP_EPS
from expire_span.agents.advantage_scale import LEAST_SHARE
from expire_span.agents.base import MemoryOnPolicyAlgorithm
from expire_span.agents.span_control import SPAN_DEFAULTS
from expire_span.memory import MEMORIES

from .assignments import assignments, parse_assignments, parse_stages, stage_words
from .presets import PRESETS

DEFAULT_ENV = "ExpireSpan/Corridor-v0"

DEFAULT_THREADS = 1
"""PyTorch threads. The models are small: a second thread costs more than it brings."""


Curriculum = Annotated[
    tuple[dict[str, Any], ...],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE[,NAME=VALUE]",
        instance_from_str=parse_stages,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=stage_words,
    ),
]

EnvKwargs = Annotated[
    dict[str, Any],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE",
        instance_from_str=parse_assignments,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=assignments,
    ),
]


@dataclass(frozen=True)
class StableDecay:
    """A number that stays for half of the training and then falls linearly."""

    start: float
    end: float = 0.0

    def __call__(self, progress_remaining: float) -> float:
        """The number when `progress_remaining`, 1 at the start, 0 or less at the end, is left of
        the training."""
        return self.end + (self.start - self.end) * min(1.0, max(0.0, 2.0 * progress_remaining))


@dataclass(frozen=True, kw_only=True)
class OnPolicyOptions:
    """Hyper-parameters that PPO and A2C share."""

    learning_rate: float = 1e-3
    """Step size of the optimizer."""
    adam_eps: float = 1e-5
    """Epsilon of Adam: gradients much smaller than it move a weight less than learning-rate."""
    learning_rate_schedule: Literal["constant", "linear", "stable-decay"] = "constant"
    """Whether the step size stays, or falls linearly to 0 at total-timesteps: from the beginning,
    or (stable-decay) in the second half alone."""
    n_steps: int = 128
    """Steps per environment between two updates; memories last longer, gradients do not."""
    gamma: float = 0.99
    """Discount per step, 0 to 1."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation: 0 is one-step, 1 is Monte Carlo."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus in the loss."""
    scale_ent_coef: bool = False
    """Whether ent-coef shrinks with the advantages, as the learning rate does; where rewards are
    rare the bonus outweighs them otherwise. Needs normalize-advantage."""
    min_lr_share: float = LEAST_SHARE
    """Least share of learning-rate that is left as the advantages shrink; 1 leaves it to the
    schedule. Needs normalize-advantage."""
    solved_by: Literal["returns", "advantages"] = "returns"
    """What shrinks learning-rate: the advantages alone, or also how near the recent returns are to
    the best. Needs normalize-advantage."""
    vf_coef: float = 0.5
    """Weight of the value loss in the loss."""
    max_grad_norm: float = 0.5
    """Norm to which gradients are clipped."""
    normalize_advantage: bool = True
    """Whether advantages are scaled to mean 0 and deviation 1 in every minibatch, but divided by no
    less than the largest deviation since the return has risen: noise stays small once a task is
    solved, and the learning rate shrinks with them."""
    use_sde: bool = False
    """Whether to explore by state-dependent noise (gSDE); for continuous actions only."""
    sde_sample_freq: int = -1
    """Steps between two draws of the gSDE noise; -1 draws once per rollout."""
    span_coef: float | Literal["auto"] = "auto"
    """Weight alpha of the span loss, which shortens memories; auto presses only while the return
    allows it."""
    target_live: float | None = None
    """With span-coef auto: live memories per layer below which nothing is shortened."""
    first_target_live: float | None = None
    """A larger target-live for the first half of the training, in the second half of which it falls
    linearly to target-live: what is not yet known to matter is kept. None: target-live throughout.
    """
    use_by: Literal["attention", "influence"] = "attention"
    """With span-coef auto: which memories are held, those that get attention or those with
    influence on the action taken, which are fewer."""
    prediction_coef: float = 0.0
    """Weight of the loss of predicting the features of the next observation, which teaches the
    memory what to look up where rewards are rare; 0 predicts nothing."""
    net_arch: tuple[int, ...] = ()
    """Units of the layers between the memory and the action and value heads; none by default."""
    stats_window_size: int = 100
    """Episodes over which rollout/success_rate and rollout/ep_rew_mean are taken."""

    def __post_init__(self) -> None:
        if not 0 <= self.learning_rate < math.inf:
            raise ValueError(
                f"learning_rate = {self.learning_rate} is out of bounds; use 0 or more, as 1e-3"
            )
        _check_epsilon("adam_eps", self.adam_eps)
        if any(units < 1 for units in self.net_arch):
            raise ValueError(f"net_arch = {self.net_arch} has a layer below 1 unit; use 1 or more")
        if self.stats_window_size < 1:
            raise ValueError(
                f"stats_window_size = {self.stats_window_size} is below 1; use 1 or more"
            )
        first, last = self.first_target_live, self.target_live
        if first is not None and (last is None or not 0 < last <= first < math.inf):
            raise ValueError(
                f"first_target_live = {first} falls to target_live = {last}: two numbers above 0, "
                "the second no larger; or give --first-target-live None"
            )

    def algorithm_kwargs(self, memory: str) -> dict[str, Any]:
        """Keyword arguments of the algorithm's class, beside the memory of that name. What changes
        nothing, of a preset perhaps, is left out."""
        kwargs = asdict(self)
        if not self.normalize_advantage:
            del kwargs["solved_by"]
        schedule = kwargs.pop("learning_rate_schedule")
        if schedule == "linear":
            kwargs["learning_rate"] = LinearSchedule(self.learning_rate, 0.0, 1.0)
        elif schedule == "stable-decay":
            kwargs["learning_rate"] = StableDecay(self.learning_rate)
        first = kwargs.pop("first_target_live")
        if first is not None and self.target_live is not None:
            kwargs["target_live"] = StableDecay(first, self.target_live)
        if not MEMORIES[memory].learns_spans:
            kwargs |= SPAN_DEFAULTS
        elif not MEMORIES[memory].spans_single_memories:
            kwargs["use_by"] = SPAN_DEFAULTS["use_by"]
        if self.span_coef != "auto" and MEMORIES[memory].learns_spans:  # which nothing steers
            kwargs |= {**SPAN_DEFAULTS, "span_coef": self.span_coef}
        kwargs["policy_kwargs"] = {
            "net_arch": list(kwargs.pop("net_arch")),
            "optimizer_kwargs": {"eps": kwargs.pop("adam_eps")},
        }
        return kwargs


def _check_epsilon(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} = {value} must be above 0 and finite, as 1e-5")


@dataclass(frozen=True, kw_only=True)
class PPOOptions(OnPolicyOptions):
    """Hyper-parameters of PPO with a memory (`MemoryPPO`)."""

    batch_size: int | None = None
    """Transitions per minibatch, a multiple of n-steps (minibatches are whole environments); None
    takes a quarter of the environments."""
    n_epochs: int = 4
    """Passes over a rollout."""
    clip_range: float = 0.2
    """Distance from 1 at which the probability ratio is clipped."""
    clip_range_vf: float | None = None
    """Distance at which changes of the value are clipped, in units of return; None: not at all."""
    target_kl: float | None = 0.01
    """Approximate KL divergence at which (times 1.5) an update stops early; None: never."""
    kl_coef: float = 0.3
    """Weight in the loss of the KL divergence from the policy that acted, which holds what is right
    once advantages no longer do."""


@dataclass(frozen=True, kw_only=True)
class A2COptions(OnPolicyOptions):
    """Hyper-parameters of A2C with a memory (`MemoryA2C`)."""

    n_steps: int = 16
    """Steps per environment between two updates; memories last longer, gradients do not."""
    normalize_advantage: bool = False
    """Whether advantages are scaled to mean 0 and deviation 1 in every update; never scaled up to
    more than they were at their largest."""
    use_rms_prop: bool = False
    """Whether RMSprop is the optimizer, as in the original A2C; otherwise Adam."""
    rms_prop_eps: float = RMS_PROP_EPS
    """Epsilon of RMSprop, with use-rms-prop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_epsilon("rms_prop_eps", self.rms_prop_eps)


class AlgorithmKind(NamedTuple):
    """An entry of `ALGORITHMS`: the class and the dataclass of its options."""

    build: type[MemoryOnPolicyAlgorithm]
    options: Callable[..., OnPolicyOptions]


ALGORITHMS: dict[str, AlgorithmKind] = {
    "ppo": AlgorithmKind(MemoryPPO, PPOOptions),
    "a2c": AlgorithmKind(MemoryA2C, A2COptions),
}
"""Every algorithm by name."""


def _choices(names: Any) -> str:
    return "{" + ",".join(names) + "}"


AlgorithmName = Annotated[str, tyro.conf.arg(metavar=_choices(ALGORITHMS))]
MemoryName = Annotated[str, tyro.conf.arg(metavar=_choices(MEMORIES))]
PresetName = Annotated[str | None, tyro.conf.arg(metavar=_choices(PRESETS))]
Algorithm = TypeVar("Algorithm", bound=OnPolicyOptions)
MemoryOptions = TypeVar("MemoryOptions")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Generic[Algorithm, MemoryOptions]):
    """Train an agent with a memory, evaluate it, and show what it remembers.

    Which options there are depends on --algo and --memory, their defaults on --env and --preset:
    `train_rl.py --algo a2c --memory lstm --help` lists those of A2C with an LSTM.
    """

    algorithm: Algorithm
    """Hyper-parameters of the algorithm chosen by --algo."""
    memory_options: MemoryOptions
    """Options of the memory chosen by --memory."""

    env: str = DEFAULT_ENV
    """Id of any registered gymnasium environment; `module:Id` imports the module that registers it
    first. MiniGrid ids need no module, and their text missions are left out of the observation."""
    env_kwargs: EnvKwargs = field(default_factory=dict)
    """Arguments of the environment, as in --env-kwargs max_length=30 view_size=5; those of a preset
    or a config file stay unless given here. With nothing behind it none is left."""
    curriculum: Curriculum = ()
    """Easier forms of the environment to begin with, one word each, in order: arguments that differ
    from env-kwargs there, as in --curriculum n_rooms=2 n_rooms=3. The environment itself is last;
    evaluation plays that alone."""
    curriculum_success: float = 0.9
    """Share of the last 300 episodes that must succeed before the next stage of the curriculum."""
    curriculum_steps: int | tuple[int, ...] | None = None
    """Environment steps after which the next stage begins however it went, one number for all
    stages or one for each; None waits for it."""
    algo: AlgorithmName = "ppo"
    """Algorithm that learns."""
    memory: MemoryName = "expire-span"
    """Memory of the agent."""
    preset: PresetName = None
    """Named set of defaults; None takes the one made for the environment, if any; `none` is the
    library's own defaults. Options given explicitly come before any preset."""
    total_timesteps: int = 300_000
    """Environment steps to train for, all environments together. The last rollout is completed."""
    n_envs: int = 16
    """Environments stepped side by side."""
    seed: int = 0
    """Seed of weights, actions, minibatches and environments. Same seed and CPU: same run."""
    device: str = "auto"
    """PyTorch device: cpu, cuda, cuda:1 and so on; auto takes the GPU if there is one."""
    threads: int = DEFAULT_THREADS
    """CPU threads PyTorch may use."""
    run_dir: Path | None = None
    """Folder for everything the run writes, new or empty; None makes one under runs/."""
    config: Path | None = None
    """A config.yaml of an earlier run, to be repeated. Options given explicitly change it."""
    resume: Path | None = None
    """Folder of a run that was stopped: goes on from its model.zip until total-timesteps. Once
    these are done the agent is evaluated again."""
    weights_from: Path | None = None
    """Folder of another run, with whose weights this one begins; all else is this run's own. Its
    network and algorithm have to be this one's: --config FOLDER/config.yaml takes its options."""
    checkpoint_interval: int = 50_000
    """Environment steps between two saves of model.zip."""
    eval_episodes: int = 1000
    """Fresh episodes played after training."""
    eval_env_kwargs: EnvKwargs = field(default_factory=dict)
    """Arguments of the environment that are others in these episodes, as in --eval-env-kwargs
    min_length=30; treated as env-kwargs are."""
    eval_deterministic: bool = True
    """Whether they are played without exploration, by the likeliest actions; otherwise actions are
    drawn, as in training. An agent that can only guess may wait for ever without exploration."""
    wandb: Literal["offline", "online", "disabled"] = "offline"
    """Weights & Biases: offline writes to the run's folder and needs no account, online uploads."""
    wandb_project: str = "expire-span"
    """Weights & Biases project."""
    tensorboard: bool = False
    """Whether to write TensorBoard files to the run's folder."""
    progress: bool = True
    """Whether to show progress: a bar on a terminal, elsewhere one line for every tenth."""

    def __post_init__(self) -> None:
        counts = ("total_timesteps", "n_envs", "threads", "checkpoint_interval", "eval_episodes")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} is below 1; use 1 or more")
        if not 0 < self.curriculum_success <= 1:
            raise ValueError(
                f"curriculum_success = {self.curriculum_success} is a share above 0, of 1 at most"
            )
        if isinstance(self.curriculum_steps, tuple) and len(self.curriculum_steps) == 1:
            object.__setattr__(self, "curriculum_steps", self.curriculum_steps[0])  # as files do
        steps = self.curriculum_steps
        numbers = steps if isinstance(steps, tuple) else () if steps is None else (steps,)
        if any(number < 1 for number in numbers):
            raise ValueError(f"curriculum_steps = {steps} is below 1; use 1 or more, or None")
        if isinstance(steps, tuple) and len(steps) != len(self.curriculum):
            raise ValueError(
                f"curriculum_steps = {steps} are for {len(steps)} stages, and curriculum has "
                f"{len(self.curriculum)}; give one for each, one for all, or None"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed = {self.seed} is out of bounds; use 0 to {2**32 - 1}")

    def steps_of_stages(self) -> tuple[int | None, ...]:
        """For each stage of the curriculum the environment steps it has at most."""
        if isinstance(self.curriculum_steps, tuple):
            return self.curriculum_steps
        return (self.curriculum_steps,) * len(self.curriculum)


AnyConfig = TrainConfig[Any, Any]

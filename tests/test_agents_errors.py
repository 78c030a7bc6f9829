"""What cannot work is refused by name, and nothing trained is lost.

B environments, T steps of a rollout.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

from expire_span.agents import (
    CheckpointError,
    DivergedError,
    MemoryA2C,
    MemoryPPO,
    NonFiniteError,
    make_vec_env,
)
from expire_span.agents.rollout import MemoryRolloutBuffer
from expire_span.memory import MEMORIES

SMALL: dict[str, Any] = {"memory_kwargs": {"width": 16}}
B, T = 3, 16

ALGORITHMS: list[Any] = [MemoryPPO, MemoryA2C]


for_both_algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS)


class Spaces(gym.Env[Any, Any]):
    """Samples of any observation space; episodes of 5 steps that are cut."""

    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation, action
        self.total = -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.taken = 0
        self.total += 1
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.taken += 1
        self.total += 1
        return self.observe(), self.reward(), False, self.taken == 5, {}

    def observe(self) -> Any:
        """What is seen now; `total` counts the observations given before."""
        return self.observation_space.sample()

    def reward(self) -> float:
        return 1.0


BOX = spaces.Box(-1, 1, (3,), np.float32)
KEYS = spaces.Dict({"place": spaces.Box(-1, 1, (2, 2), np.float32), "turn": spaces.Discrete(2)})


class Spoiled(Spaces):
    """Goes wrong once: where, and at which of its observations (steps and resets)."""

    def __init__(self, where: str, at: int | None, value: float) -> None:
        super().__init__(KEYS if where == "key" else BOX, spaces.Discrete(2))
        self.where, self.at, self.value = where, at, value

    def observe(self) -> Any:
        obs = self.observation_space.sample()
        if self.total == self.at and self.where != "reward":
            (obs["place"] if self.where == "key" else obs)[1] = self.value
        return obs

    def reward(self) -> float:
        return self.value if self.where == "reward" and self.total == self.at else 1.0


def spoiled_envs(where: str, at: int, value: float = float("nan")) -> DummyVecEnv:
    """The second of three goes wrong."""
    return DummyVecEnv(
        [lambda i=i: Spoiled(where, at if i == 1 else None, value) for i in range(B)]  # type: ignore[misc]
    )


# values that are not finite


# Six observations an episode, so observation 25 is given by step 21: 16 in the first rollout
@for_both_algorithms
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("observation", r"observation entry \(1,\) = {}"),
        ("key", r"observation place entry \(1, 0\) = {}"),
        ("reward", "reward = {}"),
    ],
)
def test_values_not_finite_stop_training_by_name_with_the_model_saved(
    algorithm: Any, where: str, what: str, value: float, tmp_path: Path
) -> None:
    rescued = tmp_path / "rescued.zip"
    model = algorithm(
        "MultiInputPolicy" if where == "key" else "MlpPolicy",
        spoiled_envs(where, at=25, value=value),
        n_steps=T,
        rescue_path=str(rescued),
        seed=0,
        **SMALL,
    )
    untrained = {name: part.clone() for name, part in model.policy.state_dict().items()}
    message = f"{what.format(value)} of environment 1 at step {21 * B} is not finite.*{rescued}"
    with pytest.raises(NonFiniteError, match=message):
        model.learn(10 * B * T)
    loaded = algorithm.load(rescued, env=spoiled_envs(where, at=-1))
    for name, part in loaded.policy.state_dict().items():
        assert torch.equal(part, model.policy.state_dict()[name]) and part.isfinite().all()
    assert any(
        not torch.equal(part, untrained[name]) for name, part in loaded.policy.state_dict().items()
    )
    assert loaded.learn(B * T, reset_num_timesteps=False).num_timesteps == (21 + T) * B


@for_both_algorithms
@pytest.mark.parametrize(
    ("at", "step"),
    [
        pytest.param(24, 20 * B, id="first of an episode"),
        pytest.param(23, 20 * B, id="last of an episode that is cut"),
        pytest.param(0, 0, id="first of all"),
    ],
)
def test_observations_not_finite_are_named_wherever_they_are_in_an_episode(
    algorithm: Any, at: int, step: int, tmp_path: Path
) -> None:
    env = spoiled_envs("observation", at)
    model = algorithm("MlpPolicy", env, n_steps=T, rescue_path=str(tmp_path / "saved"), **SMALL)
    with pytest.raises(NonFiniteError, match=f"observation .* of environment 1 at step {step} "):
        model.learn(10 * B * T)
    assert type(algorithm.load(tmp_path / "saved")) is algorithm


@for_both_algorithms
@pytest.mark.parametrize(
    "memory",
    MEMORIES,
)
def test_weights_that_diverge_stop_training_by_name_with_the_model_saved(
    algorithm: Any, memory: str, tmp_path: Path
) -> None:
    model = algorithm(
        "MlpPolicy",
        DummyVecEnv([lambda: Spaces(BOX, spaces.Discrete(2))] * B),
        memory=memory,
        learning_rate=1e30,
        n_steps=T,
        rescue_path=str(tmp_path / "saved"),
        **SMALL,
    )
    with pytest.raises(NonFiniteError, match="learning_rate"):
        model.learn(100 * B * T)
    assert (tmp_path / "saved.zip").exists()


class Miscounts(Spaces):
    """Gives, once, a number its space does not count to."""

    def __init__(self, space: spaces.Space[Any], spoil: Any, at: int | None) -> None:
        super().__init__(space, spaces.Discrete(2))
        self.spoil, self.at = spoil, at

    def observe(self) -> Any:
        obs = self.observation_space.sample()
        if self.total != self.at:
            return obs
        return {**obs, "turn": self.spoil} if isinstance(obs, dict) else self.spoil


@for_both_algorithms
@pytest.mark.parametrize(
    ("space", "spoil", "what"),
    [
        (spaces.Discrete(4), 7, r"entry \(\) = 7 of .* beyond the 0 to 3 of Discrete\(4\)"),
        (spaces.Discrete(4), -1, r"entry \(\) = -1 of .* beyond the 0 to 3 of Disc"),
        (spaces.MultiDiscrete([3, 2]), np.array([2, 2]), r"entry \(1,\) = 2 of .* 0 to 1 of Multi"),
        (KEYS, 2, r"turn entry \(\) = 2 of .* 0 to 1 of Disc"),
    ],
)
# the sixth and last observation of an episode, and the first of the next, come with one step
@pytest.mark.parametrize(("at", "step"), [(8, 21), (11, 30), (0, 0)])
def test_numbers_beyond_a_discrete_space_are_named(
    algorithm: Any, space: spaces.Space[Any], spoil: Any, what: str, at: int, step: int
) -> None:
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    wrong, right = (functools.partial(Miscounts, space, spoil, when) for when in (at, None))
    model = algorithm(policy, DummyVecEnv([right, wrong, right]), n_steps=T, **SMALL)
    with pytest.raises(ValueError, match=f"observation {what}.*") as raised:
        model.learn(B * T)
    assert f"of environment 1 at step {step} " in str(raised.value)


def test_predict_names_observations_that_it_cannot_read() -> None:
    model = MemoryPPO("MlpPolicy", Spaces(spaces.Discrete(4), spaces.Discrete(2)), **SMALL)
    with pytest.raises(ValueError, match=r"= 7 of environment 0 given to predict is beyond"):
        model.predict(np.array(7))
    with pytest.raises(ValueError, match=r"= -1 of environment 1 given to predict is beyond"):
        model.predict(np.array([0, -1, 2]))
    model = MemoryPPO("MultiInputPolicy", Spaces(KEYS, spaces.Discrete(2)), **SMALL)
    obs = KEYS.sample()
    assert model.predict(obs)[0].shape == ()
    obs["place"][1, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"place entry \(1, 0\) = nan .* predict is not"):
        model.predict(obs)


def test_an_error_is_not_hidden_by_a_disk_that_takes_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MemoryPPO("MlpPolicy", spoiled_envs("reward", at=25), n_steps=T, **SMALL)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save", full)
    with pytest.raises(NonFiniteError, match=r"reward = nan .* could not be saved.*No space left"):
        model.learn(10 * B * T)


def test_agents_rescued_in_one_folder_do_not_overwrite_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rescued_model.zip", "rescued_model-2.zip", "rescued_model-3.zip"):
        model = MemoryPPO("MlpPolicy", spoiled_envs("reward", at=25), n_steps=T, **SMALL)
        with pytest.raises(NonFiniteError, match=f"The model is saved in {tmp_path / name}"):
            model.learn(10 * B * T)
        saved = MemoryPPO.load(tmp_path / name).policy.state_dict()
        assert all(torch.equal(p, saved[key]) for key, p in model.policy.state_dict().items())


# checkpoints


def write(model: Any, path: Path) -> bytes:
    model.save(path)
    return path.read_bytes()


def small(algorithm: Any = MemoryPPO, **kwargs: Any) -> Any:
    kwargs = {"n_envs": 2, "n_steps": T} | SMALL | kwargs
    return algorithm("MlpPolicy", "CartPole-v1", **kwargs)


def flipped(content: bytes) -> bytes:
    """One byte wrong in the middle of the weights."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@for_both_algorithms
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: b"", "is corrupt or no checkpoint"),
        (lambda content: b"not a zip file" * 99, "is corrupt or no checkpoint"),
        (lambda content: content[: len(content) // 2], "is corrupt|is no checkpoint"),
        (lambda content: content[:-9], "is corrupt or no checkpoint"),
        (flipped, "is corrupt: its part '.*' is damaged"),
    ],
    ids=["empty", "no zip", "half", "end missing", "damaged"],
)
def test_corrupt_checkpoints_are_refused_with_the_reason(
    algorithm: Any, spoil: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(spoil(write(small(algorithm), path)))
    for name in (path, tmp_path / "model", str(path)):
        with pytest.raises(CheckpointError, match=f"model.zip.*{message}.*{algorithm.__name__}"):
            algorithm.load(name)


def test_zip_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photo.txt", "hello")
    with pytest.raises(CheckpointError, match=r"no checkpoint of an SB3.*policy.pth.* missing"):
        MemoryPPO.load(tmp_path / "photos")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*nothing\.zip"):
        MemoryPPO.load(tmp_path / "nothing")


@for_both_algorithms
def test_agents_without_memory_are_refused(algorithm: Any, tmp_path: Path) -> None:
    PPO("MlpPolicy", "CartPole-v1", n_steps=T, batch_size=T).save(tmp_path / "ppo")
    with pytest.raises(CheckpointError, match=r"ppo.zip holds an agent .* without memory"):
        algorithm.load(tmp_path / "ppo")


@pytest.mark.parametrize(("saved", "loaded"), [ALGORITHMS, ALGORITHMS[::-1]])
def test_agents_of_the_other_algorithm_are_refused(saved: Any, loaded: Any, tmp_path: Path) -> None:
    small(saved).save(tmp_path / "model")
    with pytest.raises(CheckpointError, match=f"{saved.__name__}.*{loaded.__name__}"):
        loaded.load(tmp_path / "model")


@for_both_algorithms
def test_agents_saved_in_another_format_are_refused(
    algorithm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expire_span.agents.saving.CHECKPOINT_FORMAT", 1)
    small(algorithm).save(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"model.zip has checkpoint_format = 1.* train anew"):
        algorithm.load(tmp_path / "model")
    with (tmp_path / "model.zip").open("rb") as file:
        with pytest.raises(CheckpointError, match=r"has checkpoint_format = 1.* train anew"):
            algorithm.load(file)


def test_an_open_file_is_a_checkpoint(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "model")
    with (tmp_path / "model.zip").open("rb") as file:
        loaded = MemoryPPO.load(file)
    for name, weight in model.policy.state_dict().items():
        assert torch.equal(weight, loaded.policy.state_dict()[name])


def test_environments_that_do_not_fit_a_checkpoint_are_refused(tmp_path: Path) -> None:
    small().save(tmp_path / "model")
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        MemoryPPO.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", 2))


@pytest.mark.parametrize("data", [b"[]", b"no JSON"])
def test_a_zip_file_whose_data_is_of_another_kind_is_refused(data: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for name in ("data", "policy.pth", "policy.optimizer.pth"):
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="its part 'data' is no JSON object"):
        MemoryPPO.load(tmp_path / "model")


def test_loading_changes_what_it_can_and_refuses_the_rest(tmp_path: Path) -> None:
    small().save(tmp_path / "model")
    loaded = MemoryPPO.load(tmp_path / "model", env="CartPole-v1", use_by="influence")
    assert loaded.n_envs == small().n_envs and loaded.span_control.use_by == "influence"
    with pytest.raises(ValueError, match="span_coef = -3 must be"):
        MemoryPPO.load(tmp_path / "model", span_coef=-3)
    with pytest.raises(ValueError, match="use_by = 'influence' changes nothing with span_coef = 1"):
        MemoryPPO.load(tmp_path / "model", span_coef=1, use_by="influence")
    with pytest.raises(ValueError, match="load cannot change memory, memory_kwargs: the network"):
        MemoryPPO.load(tmp_path / "model", memory="lstm", memory_kwargs={})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 2.0}, "gamma = 2.0 is out of bounds"),
        ({"n_epochs": 0}, "n_epochs = 0 is below 1"),
        ({"target_kl": -1.0}, "target_kl = -1.0 must be above 0"),
        ({"min_lr_share": 7.0}, "min_lr_share = 7.0 must be above 0"),
        ({"batch_size": 31}, "batch_size = 31 is not a multiple"),
    ],
)
def test_what_making_an_agent_refuses_loading_one_refuses(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    small().save(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        MemoryPPO.load(tmp_path / "model", **change)


# names and numbers


@for_both_algorithms
def test_unknown_names_list_the_known_ones(algorithm: Any) -> None:
    with pytest.raises(ValueError, match=f"'expirespan'.*{', '.join(MEMORIES)}"):
        small(algorithm, memory="expirespan")
    with pytest.raises(TypeError, match=r"no option maxspan; it has: .*max_span"):
        small(algorithm, memory_kwargs={"maxspan": 9})
    with pytest.raises(ValueError, match=r"'CartPole-v9' is not registered.*CartPole-v1"):
        algorithm("MlpPolicy", "CartPole-v9")
    with pytest.raises(ValueError, match=r"'MlpLstmPolicy' is unknown.*MlpPolicy.*memory='lstm'"):
        algorithm("MlpLstmPolicy", "CartPole-v1")
    with pytest.raises(TypeError, match=r"lstm_hidden_size.*memory_kwargs=\{'width'"):
        small(algorithm, policy_kwargs={"lstm_hidden_size": 64})
    for name in ("features_dim", "cnn_output_dim"):
        with pytest.raises(TypeError, match=rf"{name}, which there is not.*'cnn_width': 256"):
            small(algorithm, policy_kwargs={"features_extractor_kwargs": {name: 64}})
    with pytest.raises(ValueError, match="'nomod:X-v0' is of a module that cannot be imported"):
        algorithm("MlpPolicy", "nomod:X-v0")
    with pytest.raises(ValueError, match=r"Coridor-v0' is not registered; near it: \S*Corridor-v0"):
        algorithm("MlpPolicy", "expire_span.envs:ExpireSpan/Coridor-v0")
    with pytest.raises(TypeError, match="memry"):
        small(algorithm, memry="gru")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_steps": 60, "batch_size": 64}, "64 is not a multiple of n_steps = 60.*use 60 or 120"),
        ({"n_steps": 60, "batch_size": 32}, "32 is not a multiple of n_steps = 60.*use 60 or 120"),
        ({"n_envs": -1}, "n_envs = -1 is below 1"),
        ({"span_coef": -1.0}, "span_coef = -1.0 must be 'auto' or a number of at least 0"),
        ({"span_coef": "aut"}, "span_coef = 'aut' must be 'auto' or a number"),
        ({"target_live": 0}, "target_live = 0 must be above 0"),
        ({"target_live": float("nan")}, "target_live = nan must be above 0"),
        ({"target_live": lambda remaining: 8 * remaining}, "target_live = 0 must be above 0"),
        ({"span_coef": 1e-3, "target_live": 9}, "target_live = 9 needs span_coef='auto'"),
        ({"span_coef": 1e-3, "use_by": "influence"}, "'influence' changes nothing with span_coef"),
        ({"memory": "lstm", "target_live": 9}, "target_live = 9 changes nothing with .*'lstm'"),
        ({"memory": "none", "span_coef": 0.1}, "span_coef = 0.1 changes nothing with .*'none'"),
        ({"memory": "compressive", "use_by": "influence"}, "use_by = 'influence' changes nothing"),
        (
            {"memory": "adaptive-span", "use_by": "influence"},
            "use_by = 'influence' changes nothing with .* whose memories share a span",
        ),
        ({"policy_kwargs": {"share_features_extractor": False}}, "is not supported.*net_arch"),
        ({"n_envs": 0}, "n_envs = 0 is below 1"),
        ({"span_coef": float("inf")}, "span_coef = inf"),
        ({"span_coef": "1e-3"}, "span_coef = '1e-3' must be 'auto' or a number"),
        ({"target_live": "5"}, "target_live = '5' must be a number, a function or None"),
        ({"max_grad_norm": -1.0}, "max_grad_norm = -1.0 must be above 0"),
        ({"clip_range": -1.0}, "clip_range = -1.0 must be above 0"),
        ({"clip_range_vf": 0}, "clip_range_vf = 0 must be above 0"),
        ({"clip_range": float("nan")}, "clip_range = nan must be above 0"),
        ({"gamma": None}, "gamma = None is no number; use 0 to 1"),
        ({"gae_lambda": "0.9"}, "gae_lambda = '0.9' is no number; use 0 to 1"),
        ({"ent_coef": lambda left: left}, "ent_coef = <f.* may be functions; use 0 or more"),
        ({"max_grad_norm": None}, r"max_grad_norm = None is no number; use float\('inf'\)"),
        ({"kl_coef": None}, "kl_coef = None is no number; use 0 or more"),
        ({"target_kl": "0.1"}, "target_kl = '0.1' is no number; use one above 0, or None"),
        ({"n_envs": 2.0}, "n_envs = 2.0 is no whole number; use an int, 1 or more"),
        ({"n_steps": 0}, "n_steps = 0 is out of bounds; use 1 or more"),
        ({"n_epochs": 0}, "n_epochs = 0 is below 1"),
        ({"target_kl": -1.0}, "target_kl = -1.0 must be above 0"),
        ({"gamma": 1.5}, "gamma = 1.5 is out of bounds; use 0 to 1"),
        ({"gae_lambda": -0.1}, "gae_lambda = -0.1 is out of bounds"),
        ({"n_steps": 33.5}, "n_steps = 33.5 is no whole number; use an int, 1 or more"),
        ({"n_epochs": 2.5}, "n_epochs = 2.5 is no whole number"),
        ({"ent_coef": np.inf}, "ent_coef = inf is out of bounds; use 0 or more, a finite number"),
        ({"vf_coef": np.nan}, "vf_coef = nan is out of bounds; use 0 or more, a finite number"),
        ({"prediction_coef": np.inf}, "prediction_coef = inf .* a finite number"),
        ({"span_coef": np.inf}, "span_coef = inf must be .* of at least 0, finite"),
        ({"seed": -1}, "seed = -1 is out of bounds; use a whole number, 0 to 4294967295"),
        ({"seed": 1.5}, "seed = 1.5 is out of bounds"),
        ({"seed": 2**32}, "seed = 4294967296 is out of bounds"),
        ({"stats_window_size": 0}, "stats_window_size = 0 is below 1, .*use 1 or more"),
        ({"policy_kwargs": {"net_arch": [8, 0]}}, r"net_arch = \[8, 0\] has a layer below 1 unit"),
        ({"policy_kwargs": {"net_arch": {"pi": [8], "vf": [-1]}}}, "net_arch = .*-1.* use 1 or"),
    ],
)
def test_numbers_out_of_bounds_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**kwargs)


@pytest.mark.parametrize("freq", [0, -3])
def test_state_dependent_noise_is_drawn_once_or_every_so_many_steps(freq: int) -> None:
    def with_noise(freq: int) -> MemoryPPO:
        env = Spaces(BOX, spaces.Box(-1, 1, (2,)))
        return MemoryPPO("MlpPolicy", env, use_sde=True, sde_sample_freq=freq, **SMALL)

    with pytest.raises(ValueError, match=f"sde_sample_freq = {freq} is no number of steps; .* -1"):
        with_noise(freq)
    assert with_noise(1).use_sde and with_noise(-1).use_sde


def test_numbers_of_numpy_are_numbers() -> None:
    assert small(target_live=np.int64(5)).span_control.target_live(1.0) == 5
    assert small(span_coef=np.float32(0.5)).span_control.coef == 0.5


@pytest.mark.parametrize("options", [{}, {"n_envs": 4}])
def test_an_agent_needs_an_environment(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="env = None: an agent is made for an environment"):
        MemoryPPO("MlpPolicy", None, **options)


@for_both_algorithms
def test_a_buffer_without_memory_is_refused(algorithm: Any, tmp_path: Path) -> None:
    class Own(MemoryRolloutBuffer):
        """A buffer of a user's own."""

    message = r"rollout_buffer_class = .*\.RolloutBuffer'> keeps no memory; leave it out"
    with pytest.raises(TypeError, match=message):
        small(algorithm, rollout_buffer_class=RolloutBuffer)
    assert isinstance(small(algorithm, rollout_buffer_class=Own).rollout_buffer, Own)
    model = small(algorithm, rollout_buffer_class=None)
    model.save(tmp_path / "model")
    with pytest.raises(TypeError, match=message):
        algorithm.load(tmp_path / "model", rollout_buffer_class=RolloutBuffer)


@pytest.mark.parametrize("env_id", [Spaces, None])
def test_environments_are_made_of_an_id(env_id: Any) -> None:
    with pytest.raises(TypeError, match=r"env_id = .* is no id; .*gymnasium\.register.*env_util"):
        make_vec_env(env_id, 2)


def test_as_many_environments_are_made_as_a_whole_number_says() -> None:
    with pytest.raises(ValueError, match=r"n_envs = 2\.0 is no whole number; use an int"):
        make_vec_env("CartPole-v1", 2.0)  # type: ignore[arg-type]
    assert make_vec_env("CartPole-v1", np.int64(2)).num_envs == 2  # type: ignore[arg-type]


@for_both_algorithms
@pytest.mark.parametrize("value", [1e22, -1e16])
def test_an_observation_too_large_to_square_is_named(
    algorithm: Any, value: float, tmp_path: Path
) -> None:
    rescued = str(tmp_path / "rescued.zip")
    env = spoiled_envs("observation", at=3, value=value)
    model = algorithm("MlpPolicy", env, n_steps=T, rescue_path=rescued, **SMALL)
    with pytest.raises(NonFiniteError, match=r"entry \(1,\) = .* environment 1 .* beyond 1e\+15"):
        model.learn(B * T)


@for_both_algorithms
def test_what_is_no_option_of_the_class_is_refused_on_load(algorithm: Any, tmp_path: Path) -> None:
    small(algorithm).save(tmp_path / "model")
    with pytest.raises(TypeError, match=r"load got entcoef, .* did you mean ent_coef"):
        algorithm.load(tmp_path / "model", entcoef=3)
    assert algorithm.load(tmp_path / "model", ent_coef=0.5, device="cpu").ent_coef == 0.5


@pytest.mark.parametrize("env", [Spaces, gym.Env, 7])
def test_what_is_no_environment_is_named(env: Any) -> None:
    with pytest.raises(TypeError, match=r"env = .* is no environment; .* not its class"):
        MemoryPPO("MlpPolicy", env)


@for_both_algorithms
def test_an_agent_loaded_without_an_environment_asks_for_one(
    algorithm: Any, tmp_path: Path
) -> None:
    small(algorithm).save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model")
    with pytest.raises(ValueError, match=r"env = None: .* load\(path, env=...\) or to set_env"):
        loaded.learn(1)
    loaded.set_env("CartPole-v1")
    loaded.learn(1)


def test_a_policy_without_memory_is_refused() -> None:
    with pytest.raises(TypeError, match=r"ActorCriticPolicy'> has no memory; use 'MlpPolicy'"):
        MemoryPPO(ActorCriticPolicy, "CartPole-v1")  # type: ignore[arg-type]


@pytest.mark.parametrize("n_envs", [2, 4])
def test_environments_given_have_their_own_number(n_envs: int, tmp_path: Path) -> None:
    small().save(tmp_path / "model")
    message = f"n_envs = {n_envs} applies when env is an id; the environment given has its own"
    with pytest.raises(ValueError, match=message):
        MemoryPPO("MlpPolicy", make_vec_env("CartPole-v1", 2), n_envs=n_envs)
    with pytest.raises(ValueError, match=message):
        MemoryPPO.load(tmp_path / "model", make_vec_env("CartPole-v1", 2), n_envs=n_envs)
    loaded = MemoryPPO.load(tmp_path / "model", "CartPole-v1", n_envs=n_envs)
    assert loaded.learn(T).get_env().num_envs == n_envs


@pytest.mark.parametrize(
    ("observation", "action", "name"),
    [
        (BOX, spaces.Dict({"a": spaces.Discrete(2)}), "Dict"),
        (BOX, spaces.Tuple([spaces.Discrete(2)]), "Tuple"),
        (BOX, spaces.Text(4), "Text"),
        (spaces.Tuple([BOX, BOX]), spaces.Discrete(2), "Tuple"),
        (spaces.Dict({"in": spaces.Dict({"box": BOX})}), spaces.Discrete(2), "Dict"),
        (spaces.Dict({"observation": spaces.Dict({"box": BOX})}), spaces.Discrete(2), "Dict"),
        (spaces.Box(-1, 1, ()), spaces.Discrete(2), "a number without an axis"),
        (spaces.Dict({"words": spaces.Text(4), "box": BOX}), spaces.Discrete(2), "Text"),
        (spaces.Text(4), spaces.Discrete(2), "Text"),
        (spaces.Discrete(4, start=3), spaces.Discrete(2), "start"),
        (BOX, spaces.Discrete(4, start=3), "start"),
        (BOX, spaces.Box(-np.inf, np.inf, (2,)), "finite bounds"),
        (BOX, spaces.MultiBinary([2, 2]), "MultiBinary"),
        (spaces.Dict({"": BOX}), spaces.Discrete(2), "'' has no name; give the parts"),
        (spaces.MultiDiscrete(np.array([[2, 3], [4, 2]])), spaces.Discrete(2), "MultiDiscrete"),
    ],
)
def test_spaces_not_supported_are_named(
    observation: spaces.Space[Any], action: spaces.Space[Any], name: str
) -> None:
    policy = "MultiInputPolicy" if isinstance(observation, spaces.Dict) else "MlpPolicy"
    with pytest.raises(ValueError, match=name):
        MemoryPPO(policy, Spaces(observation, action), **SMALL)


@pytest.mark.parametrize(
    "observation",
    [
        spaces.Text(4),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Dict({"words": spaces.Text(4), "box": BOX}),
    ],
)
def test_spaces_not_supported_are_named_for_an_id_too(observation: spaces.Space[Any]) -> None:
    make = functools.partial(Spaces, observation, spaces.Discrete(2))
    gym.register("Unreadable-v0", make, disable_env_checker=True)
    try:
        with pytest.raises(ValueError, match=r"(Text|Sequence) space, which is not supported"):
            MemoryPPO("MlpPolicy", "Unreadable-v0")
        with pytest.raises(ValueError, match=r"(Text|Sequence) space, which is not supported"):
            make_vec_env("Unreadable-v0", 2)
    finally:
        gym.registry.pop("Unreadable-v0")


def test_nan_in_any_weight_is_told_with_the_model_saved(tmp_path: Path) -> None:
    options: dict[str, Any] = {"memory": "none", "n_envs": 2, "n_steps": 16, **SMALL}
    model = MemoryPPO("MlpPolicy", "CartPole-v1", rescue_path=str(tmp_path / "rescued"), **options)
    with torch.no_grad():
        model.policy.get_parameter("action_net.weight")[0, 0] = torch.nan
    with pytest.raises(DivergedError, match="the weights have diverged: the largest is nan"):
        model.learn(32)
    assert (tmp_path / "rescued.zip").exists()


def test_after_a_reward_of_no_size_that_can_be_the_model_saved_learns_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"memory": "none", "n_steps": 16, **SMALL}
    spoiled = make_vec_env("CartPole-v1", 2, seed=0)
    model = MemoryPPO("MlpPolicy", spoiled, rescue_path=str(tmp_path / "rescued"), **options)
    model.learn(32)
    step_wait = spoiled.step_wait

    def absurd() -> Any:
        obs, rewards, dones, infos = step_wait()
        return obs, np.where(np.arange(2) == 1, 1e14, rewards), dones, infos

    spoiled.step_wait = absurd  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match=r"largest reward is 1e\+14: mend the environment"):
        model.learn(32, reset_num_timesteps=False)
    assert model.policy.value_scale.item() < 100  # no scale was taken from it
    mended = make_vec_env("CartPole-v1", 2, seed=0)
    MemoryPPO.load(tmp_path / "rescued", env=mended).learn(32, reset_num_timesteps=False)


@for_both_algorithms
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("learning_rate", [300.0, 1e8])
def test_an_update_after_which_the_policy_says_nothing_is_told_before_a_save(
    algorithm: Any, memory: str, learning_rate: float, tmp_path: Path
) -> None:
    saves: list[int] = []

    class Saves(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            saves.append(self.num_timesteps)

        def _on_training_end(self) -> None:
            saves.append(self.num_timesteps)

    model = algorithm(
        "MlpPolicy",
        DummyVecEnv([lambda: Spaces(BOX, spaces.Box(-1, 1, (2,)))] * B),
        memory=memory,
        learning_rate=learning_rate,
        n_steps=T,
        seed=0,
        rescue_path=str(tmp_path / "saved"),
        **SMALL,
    )
    with pytest.raises(DivergedError, match=r"has diverged: the .* of environment .*learning_rate"):
        model.learn(B * T, Saves())  # of one update, which nothing follows
    assert saves == [B * T]
    model.learning_rate = 0.0
    model._setup_lr_schedule()
    with pytest.raises(DivergedError, match="diverged"):
        model.learn(3 * B * T, Saves())
    assert saves == [B * T]


@for_both_algorithms
def test_errors_of_a_policy_that_is_well_stay_what_they_are(algorithm: Any) -> None:
    class Breaks(Spaces):
        def reward(self) -> float:
            raise RuntimeError("no reward today")

    model = algorithm("MlpPolicy", Breaks(BOX, spaces.Discrete(2)), n_steps=T, **SMALL)
    with pytest.raises(RuntimeError, match="no reward today"):
        model.learn(B * T)

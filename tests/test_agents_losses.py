"""The losses by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from expire_span.agents import MemoryA2C, MemoryPPO
from expire_span.agents.advantage_scale import LEAST_SHARE, AdvantageScale, SolvedSign
from expire_span.agents.losses import entropy_loss, normalize, ppo_policy_loss, value_loss
from expire_span.agents.return_scale import ReturnScale


def small_ppo(**options: Any) -> MemoryPPO:
    smallest: dict[str, Any] = {"memory": "none", "n_envs": 2, "n_steps": 16, "seed": 0}
    return MemoryPPO("MlpPolicy", "CartPole-v1", **smallest | options)


def test_normalised_advantages_have_mean_0_and_deviation_1() -> None:
    normal = normalize(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert normal.mean().item() == pytest.approx(0, abs=1e-6)
    assert normal.std().item() == pytest.approx(1, abs=1e-6)


def test_advantages_smaller_than_they_were_stay_smaller() -> None:
    noise = torch.tensor([-0.01, 0.01])
    assert normalize(noise, least_std=0.5).tolist() == pytest.approx([-0.02, 0.02])
    assert normalize(noise * 100, least_std=0.5).std().item() == pytest.approx(1)


def test_a_single_advantage_is_left_alone() -> None:
    assert normalize(torch.tensor([3.0])).tolist() == [3.0]


def test_the_learning_rate_follows_the_advantages_down_and_up_again() -> None:
    scale = AdvantageScale(has_learned=True)
    shares = []
    for deviation in (0.0, 0.2, 0.1, 1e-6, 0.4):
        scale.update(deviation, ())
        shares.append(scale.share)
    half, nothing = pytest.approx(0.5, rel=1e-3), pytest.approx(5e-6, rel=1e-3)
    assert shares == [1, 1, half, nothing, 1]


@pytest.mark.parametrize("least", [1e-6, 0.001, LEAST_SHARE])
def test_as_little_of_the_learning_rate_is_left_as_an_agent_is_told(least: float) -> None:
    scale = AdvantageScale(has_learned=True, largest=1.0, share=1e-6)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scale.shorten_steps(optimizer, least)
    assert optimizer.param_groups[0]["lr"] == least
    assert scale.entropy_share == LEAST_SHARE


def test_the_learning_rate_follows_the_distance_of_the_returns_as_well() -> None:
    """Where lengths are drawn, advantages stay as large once every episode succeeds."""
    scale, shares = AdvantageScale(True), []
    for successes in (50, 90, 99, 100, 50, 0):
        returns = [1.0] * successes + [0.0] * (100 - successes)
        scale.update(0.2, returns)
        shares.append(scale.distance_share)
    assert shares == pytest.approx([1, 0.33, 0, 0, 1, 1], abs=0.03)
    assert scale.share == 1  # what the entropy bonus follows
    scale.share, scale.distance_share = 0.6, 0.3
    for solved_by, left in (("returns", 0.3), ("advantages", 0.6)):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        scale.shorten_steps(optimizer, LEAST_SHARE, solved_by)  # type: ignore[arg-type]
        assert optimizer.param_groups[0]["lr"] == pytest.approx(left)


def test_an_agent_that_lost_everything_has_full_steps() -> None:
    """All its episodes are alike, as those of one that has solved the task."""
    scale = AdvantageScale(True)
    for returns in ([0.0] * 50 + [1.0] * 50, [1.0] * 100, [0.0] * 100):
        scale.update(0.2, returns)
    assert scale.distance_share == 1


def test_one_strange_episode_is_no_distance() -> None:
    scale = AdvantageScale(True)
    for returns in ([0.0] * 50 + [1.0] * 50, [0.0] * 50 + [1.0] * 49 + [-1e6]):
        scale.update(0.2, returns)
    assert scale.largest_distance == pytest.approx(0.5, abs=0.01)
    scale.update(0.2, [1.0] * 99 + [-1e6])
    assert scale.distance_share == 0


@pytest.mark.parametrize("solved_by", get_args(SolvedSign))
def test_what_shortens_steps_is_the_users_choice_in_learning_too(
    solved_by: SolvedSign, tmp_path: Path
) -> None:
    model = small_ppo(solved_by=solved_by)
    model.learn(32)
    model.save(tmp_path / "model.zip")
    for agent in (model, MemoryPPO.load(tmp_path / "model.zip", env="CartPole-v1")):
        agent.learn(32, reset_num_timesteps=False)
        agent.advantage_scale = AdvantageScale(share=0.6, distance_share=0.3)
        agent._begin_update()
        left = agent.policy.optimizer.param_groups[0]["lr"] / agent.learning_rate
        assert left == pytest.approx({"returns": 0.3, "advantages": 0.6}[solved_by])
    changed = MemoryPPO.load(tmp_path / "model.zip", solved_by="advantages")
    assert changed.solved_by == "advantages"


def test_small_advantages_say_nothing_before_the_return_has_risen() -> None:
    """On Acrobot every episode fails at first, so advantages are small without anything solved."""
    scale = AdvantageScale()
    for deviation, returns in ((5.0, [-500] * 19), (5.0, [-500] * 20), (0.1, [-500] * 100)):
        scale.update(deviation, returns)
        assert (scale.largest, scale.share) == (0.0, 1.0)
    scale.update(
        0.1, [-500.0] * 80 + [-100.0] * 20
    )  # that may be luck: of the first 20 none had it
    assert not scale.has_learned
    scale.update(0.2, [-100.0] * 100)
    scale.update(0.1, [-100.0] * 100)
    assert scale.share == pytest.approx(0.5, rel=1e-3)
    scale.update(0.1, [-500.0] * 100)  # what was learned once counts, even if it is lost
    assert scale.share == pytest.approx(0.5, rel=1e-3)


def test_one_outlier_does_not_silence_what_follows() -> None:
    scale = AdvantageScale(has_learned=True)
    for deviation in (0.2, 200.0, 0.2):
        scale.update(deviation, ())
    assert scale.share == pytest.approx(1 / 3, rel=1e-3)


def test_the_scale_of_returns_follows_them_and_is_at_least_1() -> None:
    scale = ReturnScale()
    assert scale.update(np.full((4, 2), 0.5, np.float32)) == 1
    assert 7 < scale.update(np.full((4, 2), -100, np.float32)) < 10
    assert scale.update(np.full((4, 2), -100, np.float32)) > 40
    for _ in range(60):
        last = scale.update(np.full((4, 2), -3, np.float32))
    assert last == pytest.approx(3, rel=0.5)


def test_one_outlier_among_the_rewards_is_not_the_scale_for_long() -> None:
    """Without a bound the scale was 2,000 after it, and 486 twenty rollouts later."""
    scale = ReturnScale()
    for _ in range(20):
        scale.update(np.full((10, 100), 40, np.float32))
    spoiled = np.full((10, 100), 40, np.float32)
    spoiled[0] = -1e5
    assert scale.update(spoiled) < 60
    for _ in range(10):
        last = scale.update(np.full((10, 100), 40, np.float32))
    assert last == pytest.approx(40, rel=0.3)


@pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])
def test_advantages_not_normalised_are_in_units_of_the_returns(
    algorithm: type[MemoryPPO | MemoryA2C],
) -> None:
    """As the critic's errors are: otherwise the memory's gradient is the actor's alone."""
    options: dict[str, Any] = {"memory": "none", "n_envs": 2, "n_steps": 64, "seed": 0}
    model = algorithm("MlpPolicy", "CartPole-v1", normalize_advantage=False, **options)
    model.learn(8 * 2 * 64)
    segment = model.rollout_buffer.segment(np.arange(2))
    assert (scale := model.policy.value_scale.item()) > 3
    assert torch.allclose(model._advantages(segment) * scale, segment.advantages)


def test_values_stay_what_they_were_when_their_scale_changes() -> None:
    model = small_ppo()
    obs, state = torch.randn(2, 4, device=model.device), model.policy.initial_state(2)
    starts = torch.ones(2, dtype=torch.bool, device=model.device)
    torch.nn.init.normal_(model.policy.value_net.weight)
    before = model.policy.values_of(obs, state, starts)
    model.policy.rescale_values(50.0)
    assert torch.allclose(model.policy.values_of(obs, state, starts), before, rtol=1e-5)
    assert model.policy.value_scale.item() == 50


def test_a_value_head_of_several_layers_is_scaled_by_its_last() -> None:
    model = small_ppo()
    layers = torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    model.policy.value_net = torch.nn.Sequential(*layers).to(model.device)  # type: ignore[assignment]
    latent = torch.randn(5, 64, device=model.device)
    before = model.policy._values(latent)
    model.policy.rescale_values(50.0)
    assert torch.allclose(model.policy._values(latent), before, rtol=1e-5)
    model.policy.value_net = torch.nn.Tanh()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"value_net = Tanh\(\) has no nn.Linear"):
        model.policy.rescale_values(50.0)


@pytest.mark.parametrize("algorithm", [MemoryPPO, MemoryA2C])
def test_the_critic_takes_no_more_of_the_gradient_where_returns_are_large(
    algorithm: type[MemoryPPO | MemoryA2C],
) -> None:
    """With rewards of 1 a step the critic's gradient was hundreds of times the actor's."""
    model = algorithm("MlpPolicy", "CartPole-v1", memory="none", n_envs=4, n_steps=64, seed=0)
    model.learn(4 * 64 * 8)
    assert model.policy.value_scale.item() > 5
    figures = model.logger.name_to_value
    assert figures["train/value_loss"] / model.policy.value_scale.item() ** 2 < 2


@pytest.mark.parametrize(("least", "left"), [(0.05, 0.25), (0.5, 0.5), (1.0, 1.0)])
def test_no_less_than_the_least_share_of_the_learning_rate_is_left(
    least: float, left: float
) -> None:
    model = MemoryPPO(
        *("MlpPolicy", "CartPole-v1"),
        memory="none",
        n_envs=2,
        n_steps=16,
        seed=0,
        learning_rate=1e-3,
        min_lr_share=least,
    )
    model.learn(32)
    model.advantage_scale.has_learned = True
    model.advantage_scale.largest = 4 * float(model.rollout_buffer.advantages.std())
    model.train()
    assert model.advantage_scale.share == pytest.approx(0.25, rel=1e-3)
    rate = model.policy.optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(left * 1e-3, rel=1e-3)


@pytest.mark.parametrize("scaled", [True, False])
def test_the_entropy_bonus_follows_the_advantages_if_it_is_to(scaled: bool) -> None:
    model = MemoryPPO(
        *("MlpPolicy", "CartPole-v1"),
        memory="none",
        n_envs=2,
        n_steps=16,
        seed=0,
        ent_coef=0.5,
        scale_ent_coef=scaled,
    )
    model.learn(32)
    segment = model.rollout_buffer.segment(np.arange(2))

    def gradient(share: float) -> torch.Tensor:
        model.advantage_scale.share = share
        loss, _, _ = model._loss(segment)
        model.policy.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        bias = model.policy.get_parameter("action_net.bias")
        assert bias.grad is not None
        return bias.grad.clone()

    whole, half, little = gradient(1.0), gradient(0.55), gradient(0.1)
    assert torch.allclose(half, (whole + little) / 2, atol=1e-7)
    assert torch.equal(whole, little) is not scaled


def test_the_entropy_bonus_needs_normalised_advantages_to_follow() -> None:
    with pytest.raises(ValueError, match="scale_ent_coef = True needs normalize_advantage = True"):
        MemoryPPO(
            "MlpPolicy", "CartPole-v1", n_envs=2, scale_ent_coef=True, normalize_advantage=False
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_lr_share": 0.0}, "min_lr_share = 0.0 must be above 0 and at most 1"),
        ({"min_lr_share": 1.5}, "min_lr_share = 1.5 must be above 0 and at most 1"),
        (
            {"min_lr_share": 0.5, "normalize_advantage": False},
            "min_lr_share = 0.5 needs normalize_advantage = True",
        ),
        ({"solved_by": "luck"}, "solved_by = 'luck' is unknown; known: returns, advantages"),
        (
            {"solved_by": "advantages", "normalize_advantage": False},
            "solved_by = 'advantages' needs normalize_advantage = True",
        ),
    ],
)
def test_a_least_share_of_the_learning_rate_that_cannot_be(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryPPO("MlpPolicy", "CartPole-v1", n_envs=2, **options)


def test_the_largest_advantages_met_are_remembered_and_saved(tmp_path: Path) -> None:
    model = small_ppo()
    model.advantage_scale.has_learned = True
    model.learn(32)
    met = float(model.rollout_buffer.advantages.std())
    assert model.advantage_scale.largest == pytest.approx(met)
    model.rollout_buffer.advantages *= 1e-3
    model.train()
    assert model.advantage_scale.largest == pytest.approx(met, rel=1e-3)
    # Adam does not see how small the gradient is, so the step itself is short
    assert model.policy.optimizer.param_groups[0]["lr"] == LEAST_SHARE * 1e-3
    model.save(tmp_path / "model.zip")
    assert MemoryPPO.load(tmp_path / "model.zip").advantage_scale == model.advantage_scale


def test_the_policy_gains_nothing_beyond_the_clip_range() -> None:
    log_prob = torch.tensor([1.5, 0.5, 1.0]).log().requires_grad_()
    result = ppo_policy_loss(log_prob, torch.zeros(3), torch.tensor([1.0, -1.0, 1.0]), 0.2)
    assert result.loss.item() == pytest.approx(-(1.2 - 0.8 + 1.0) / 3)
    assert result.clip_fraction.item() == pytest.approx(2 / 3)
    (grad,) = torch.autograd.grad(result.loss, log_prob)
    assert grad.tolist() == pytest.approx([0, 0, -1 / 3])


def test_the_divergence_from_the_policy_that_acted_has_a_gradient() -> None:
    """It leads back to it, and vanishes there."""
    log_prob = torch.tensor([0.5, 1.0, 2.0]).log().requires_grad_()
    result = ppo_policy_loss(log_prob, torch.zeros(3), torch.zeros(3), 0.2)
    (grad,) = torch.autograd.grad(result.approx_kl, log_prob)
    assert grad.tolist() == pytest.approx([-0.5 / 3, 0, 1 / 3])


@pytest.mark.parametrize("kl_coef", [0.0, 2.0])
def test_the_policy_is_held_by_the_weight_of_the_divergence(kl_coef: float) -> None:
    """What the loss adds to that of an agent without."""
    model = small_ppo(kl_coef=kl_coef)
    model.learn(32)
    segment = model.rollout_buffer.segment(np.arange(2))
    segment = segment._replace(old_log_prob=segment.old_log_prob - 0.3)
    held, _, figures = model._loss(segment)
    model.kl_coef = 0.0
    free, _, without = model._loss(segment)
    assert (held - free).item() == pytest.approx(kl_coef * figures["approx_kl"], rel=1e-3)
    assert figures["policy_gradient_loss"] == without["policy_gradient_loss"]
    assert figures["approx_kl"] > 0.01


@pytest.mark.parametrize("kl_coef", [-1.0, float("inf"), float("nan")])
def test_a_weight_of_the_divergence_that_cannot_be(kl_coef: float) -> None:
    with pytest.raises(ValueError, match=f"kl_coef = {kl_coef} is out of bounds; use 0 or more"):
        small_ppo(kl_coef=kl_coef)


def test_values_move_at_most_by_the_clip_range() -> None:
    values, returns = torch.tensor([2.0, 0.0]), torch.tensor([3.0, 0.0])
    assert value_loss(values, returns).item() == pytest.approx(0.5)
    assert value_loss(values, returns, torch.zeros(2), 0.5).item() == pytest.approx(2.5**2 / 2)


def test_entropy_without_a_closed_form_is_estimated_from_one_sample() -> None:
    log_prob = torch.tensor([-1.0, -3.0])
    assert entropy_loss(None, log_prob).item() == -2.0
    assert entropy_loss(torch.tensor([0.5, 0.7]), log_prob).item() == pytest.approx(-0.6)


def test_every_loss_has_its_sign_and_weight() -> None:
    model = small_ppo(ent_coef=0.0, vf_coef=0.0, prediction_coef=1.0, kl_coef=0.0)
    model.learn(32)
    segment = model.rollout_buffer.segment(np.arange(2))
    bare, _, figures = model._loss(segment)
    assert figures["entropy_loss"] < 0
    per_value = model.policy.value_scale.item() ** -2
    for coef, figure, unit in (
        ("ent_coef", "entropy_loss", 1.0),
        ("vf_coef", "value_loss", per_value),
        ("prediction_coef", "prediction_loss", 1.0),
    ):
        before = getattr(model, coef)
        setattr(model, coef, before + 2.0)
        more = model._loss(segment)[0]
        setattr(model, coef, before)
        assert (more - bare).item() == pytest.approx(2 * unit * figures[figure], rel=1e-3), coef


def test_a2c_makes_what_gained_more_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"memory": "none", "n_envs": 2, "n_steps": 16, "seed": 0}
    model = MemoryA2C("MlpPolicy", "CartPole-v1", ent_coef=0.0, vf_coef=0.0, **options)
    model.learn(32)
    log_prob_BT = model._evaluate(model.rollout_buffer.segment(np.arange(2))).log_prob_BT
    losses: list[torch.Tensor] = []
    monkeypatch.setattr(model, "_descend", losses.append)
    model.rollout_buffer.advantages[:] = 1
    model.train()
    gained = log_prob_BT.mean().item() / model.policy.value_scale.item()
    assert losses[0].item() == pytest.approx(-gained, rel=1e-4)


def test_gradients_are_clipped_to_the_norm_given() -> None:
    model = small_ppo(max_grad_norm=1e-3)
    model.learn(32)
    gradients = [p.grad.flatten() for p in model.policy.parameters() if p.grad is not None]
    assert torch.cat(gradients).norm().item() <= 1e-3 * 1.001


def test_values_are_clipped_to_the_range_given() -> None:
    model = small_ppo(clip_range_vf=0.1, learning_rate=0.0)
    model.learn(32)
    segment = model.rollout_buffer.segment(np.arange(2))
    far = segment._replace(old_values=segment.old_values + 5, returns=segment.old_values)
    assert model._loss(far)[2]["value_loss"] == pytest.approx(4.9**2, rel=1e-3)


@pytest.mark.parametrize(("share", "stops"), [(1.4, False), (1.6, True)])
def test_an_update_stops_beyond_one_and_a_half_times_the_target(
    share: float, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_ppo(target_kl=0.1)
    model.learn(32)
    loss_of = model._loss

    def said(segment: Any) -> Any:
        loss, held, figures = loss_of(segment)
        return loss, held, figures | {"approx_kl": share * 0.1}

    monkeypatch.setattr(model, "_loss", said)
    assert model._pass([model.rollout_buffer.segment(np.arange(2))], {})[1] is stops


def test_what_was_learned_once_counts_in_the_next_task() -> None:
    model = small_ppo()
    model.advantage_scale.has_learned = True
    model.begin_task()
    assert model.advantage_scale.has_learned
    assert model.advantage_scale.largest == 0

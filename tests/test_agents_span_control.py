"""How hard memories are pressed, and which are held."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from torch import Tensor

from expire_span.agents.preference import preference
from expire_span.agents.span_control import (
    DECIDED,
    MAX_COEF,
    AutoSpanControl,
    ConstantSpanControl,
    UseSign,
    make_span_control,
)
from expire_span.memory import Aux, Read

LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.0, 30.0, 0.0]])


def test_preference_for_one_choice_does_not_saturate() -> None:
    logits = LOGITS.clone().requires_grad_()
    distribution = CategoricalDistribution(3).proba_distribution(logits)
    preferred = preference(distribution, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(preferred, torch.tensor([1.0, 20.0]))
    (slope,) = torch.autograd.grad(preferred.sum(), logits)
    torch.testing.assert_close(slope[1], torch.tensor([-1 / 3, 2 / 3, -1 / 3]))


def test_preference_sums_over_the_parts_of_an_action() -> None:
    several = MultiCategoricalDistribution([3, 2]).proba_distribution(
        torch.cat([LOGITS, torch.tensor([[1.0, 5.0], [0.0, 0.0]])], 1)
    )
    torch.testing.assert_close(
        preference(several, torch.tensor([[0, 1], [1, 0]])), torch.tensor([3.0, 20.0])
    )
    switches = BernoulliDistribution(3).proba_distribution(LOGITS)
    torch.testing.assert_close(
        preference(switches, torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])),
        torch.tensor([1.0, 30.0]),
    )


def test_preference_of_continuous_actions_is_in_standard_deviations() -> None:
    mean, log_std = torch.tensor([[3.0, -0.5]]), torch.tensor([0.5, 0.25]).log()
    normal = DiagGaussianDistribution(2).proba_distribution(mean, log_std)
    torch.testing.assert_close(preference(normal, torch.zeros(1, 2)), torch.tensor([8.0]))


def aux_of(spans: Tensor, attention: Tensor) -> Aux:
    """One memory at one step, aged 40 steps."""
    read = Read(spans.view(1, 1, 1), attention, torch.full((1, 1, 1, 1), 40.0), 1000.0, 1)
    limit = -torch.log1p(-spans / 1000.0)
    return Aux(spans.sum(), torch.log1p(spans).sum(), limit, (read,))


def pressures(control: AutoSpanControl, size: float) -> tuple[float, float]:
    """Slope of the loss by the span of a memory not needed and of one needed by a preference."""
    slopes = []
    for share in (0.0, 1.0):
        spans = torch.tensor(5.0, requires_grad=True)
        attention = torch.full((1, 1, 1, 1), 0.9, requires_grad=True)
        owed = share * size / 0.9 * attention.sum()
        preferred_BT = (size + owed - owed.detach()).view(1, 1)
        loss = control.loss(aux_of(spans, attention), preferred_BT)
        slopes.append(float(torch.autograd.grad(loss, spans)[0]))
    return slopes[0], slopes[1]


def solved(use_by: UseSign) -> AutoSpanControl:
    control = AutoSpanControl(use_by)
    control.update([1.0] * 100, live_mean=50.0, progress_remaining=1.0)
    return control


def test_memories_not_needed_are_pressed_and_those_needed_are_held() -> None:
    idle, needed = pressures(solved("influence"), DECIDED)
    assert idle == pytest.approx(MAX_COEF["influence"] * (1 + 0.1 * (1 / 6 + 1 / 995)))
    assert needed < 0


def test_pressure_waits_until_the_policy_is_decided() -> None:
    full, _ = pressures(solved("influence"), DECIDED)
    for share in (0.01, 0.5):
        slope, _ = pressures(solved("influence"), share * DECIDED)
        assert slope == pytest.approx(share * full)
    assert pressures(solved("influence"), 3 * DECIDED)[0] == pytest.approx(full)


def test_attention_holds_what_is_looked_at_needed_or_not() -> None:
    idle, needed = pressures(solved("attention"), 0.01)
    assert idle == needed < 0


def test_an_unknown_sign_of_use_is_refused() -> None:
    with pytest.raises(ValueError, match="use_by = 'luck' is unknown; known: influence, attention"):
        make_span_control("auto", None, "luck")  # type: ignore[arg-type]


def pressed(control: AutoSpanControl, returns: Sequence[float]) -> float:
    """The share of the full pressure that is left after these returns."""
    control.update(returns, 50.0, 1.0)
    return control.coef / MAX_COEF["attention"]


def test_pressure_ends_as_the_return_falls_and_the_best_is_forgotten() -> None:
    control = AutoSpanControl()
    assert pressed(control, [1.0] * 19) == 0  # too few to be believed
    assert pressed(control, [1.0] * 100) == 1
    assert pressed(control, [0.99] * 100) == pytest.approx(0.5, abs=0.01)
    assert pressed(control, [0.5] * 100) == 0
    for _ in range(3000):
        last = pressed(control, [0.5] * 100)
    assert last > 0.5


def test_a_constant_pressure_is_the_papers() -> None:
    aux = Aux(torch.tensor(3.0), torch.tensor(5.0), torch.tensor(7.0))
    assert ConstantSpanControl(0.1).loss(aux, torch.zeros(1, 1)).item() == pytest.approx(0.3)


def test_what_gets_no_attention_is_pressed() -> None:
    control = AutoSpanControl("attention")
    control.update([1.0] * 100, 50.0, 1.0)
    span = torch.tensor(5.0, requires_grad=True)
    attention, age = torch.full((1, 1, 1, 1), 0.2), torch.full((1, 1, 1, 1), 40.0)
    read = Read(span.view(1, 1, 1), attention, age, 1000.0, 1)
    aux = Aux(span.sum(), torch.log1p(span), torch.zeros(()), (read,))
    (slope,) = torch.autograd.grad(control.loss(aux, torch.zeros(1, 1)), span)
    assert slope.item() == pytest.approx(MAX_COEF["attention"] * (1 + 0.1 / 6))

"""Options no memory can have are refused by name, with the value, the bound and the way out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from expire_span.memory import MEMORIES, make_memory

for_every_memory = pytest.mark.parametrize("name", MEMORIES)


def fields(name: str) -> list[dataclasses.Field[Any]]:
    return list(dataclasses.fields(MEMORIES[name].config))


NUMBERS = [
    (name, field.name)
    for name in MEMORIES
    for field in fields(name)
    if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    if field.name != "max_live_from"  # which may be 0
]
"""Every option of every memory that is a number above 0 by default."""


def test_an_unknown_memory_lists_the_known_ones() -> None:
    with pytest.raises(ValueError) as error:
        make_memory("expire_span", dim_in=4)
    for part in ("'expire_span'", *MEMORIES):
        assert part in str(error.value)


@for_every_memory
def test_an_unknown_option_lists_the_known_ones(name: str) -> None:
    with pytest.raises(TypeError) as error:
        make_memory(name, dim_in=4, wdth=16)
    for part in (repr(name), "wdth", *(field.name for field in fields(name))):
        assert part in str(error.value)


@pytest.mark.parametrize(("name", "option"), NUMBERS)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_numbers_out_of_bounds_are_named(name: str, option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option} = {value} must (be above|lie between) 0"):
        make_memory(name, dim_in=4, **{option: value})


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_words_are_no_numbers(name: str, option: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{option} = 'a' must be a"):
        make_memory(name, dim_in=4, **{option: "a"})


@pytest.mark.parametrize("option", ["gated", "shorten"])
def test_what_is_neither_true_nor_false_is_named(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} = 'no' must be True or False"):
        make_memory("expire-span", dim_in=4, **{option: "no"})


@for_every_memory
def test_sizes_of_numpy_are_sizes(name: str) -> None:
    assert make_memory(name, np.int64(4)).dim_in == 4  # type: ignore[arg-type]


@for_every_memory
def test_inputs_have_a_size(name: str) -> None:
    with pytest.raises(ValueError, match="dim_in = 0 must be above 0"):
        make_memory(name, dim_in=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_span": 1}, "initial_span = 1 must lie between 0 and 1"),
        ({"initial_span": 64}, "initial_span = 64 .* fraction of max_span, for 64 steps use 0.125"),
        ({"max_live": 1}, "max_live = 1 must be at least 2.*use memory='none'"),
        ({"max_live": -3}, "max_live = -3 must be at least 2"),
        ({"max_live_from": 0.5}, "max_live_from = 0.5 needs a max_live"),
        ({"max_live": 8, "max_live_from": 1}, "max_live_from = 1 must be at least 0 and below 1"),
        ({"max_live": 8, "max_live_from": -0.1}, "max_live_from = -0.1 must be at least 0"),
        ({"max_live": 8, "max_live_from": float("nan")}, "max_live_from = nan must be at least 0"),
        ({"max_live": 8, "max_live_from": "half"}, "max_live_from = 'half' must be a number"),
        ({"width": 10, "n_heads": 4}, "width = 10 is not a multiple of n_heads = 4; use 8"),
        ({"width": 3, "n_heads": 4}, "width = 3 is not a multiple of n_heads = 4; use 4"),
    ],
)
def test_options_of_expire_span_have_bounds(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_memory("expire-span", dim_in=4, **options)


@pytest.mark.parametrize("option", ["max_span", "ramp", "temperature"])
def test_infinite_numbers_are_named(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} = inf"):
        make_memory("expire-span", dim_in=4, **{option: float("inf")})


@pytest.mark.parametrize("name", ["expire-span", "adaptive-span"])
@pytest.mark.parametrize("option", ["max_span", "ramp"])
def test_steps_are_told_from_one_another(name: str, option: str) -> None:
    make_memory(name, dim_in=4, **{option: 2**22})
    with pytest.raises(ValueError, match=rf"{option} = 1e\+09 must be at most 4194304"):
        make_memory(name, dim_in=4, **{option: 1e9})


@pytest.mark.parametrize("option", ["width", "n_layers", "ffn_width", "max_live"])
@pytest.mark.parametrize("value", [8.5, "8"])
def test_numbers_that_must_be_whole_are_named(option: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{option} = {value!r}"):
        make_memory("expire-span", dim_in=4, **{option: value})


@for_every_memory
def test_defaults_are_options_that_work(name: str) -> None:
    defaults = {field.name: field.default for field in fields(name)}
    memory = make_memory(name, dim_in=4, **defaults)
    x_BE, starts_B = torch.randn(3, 4), torch.ones(3, dtype=torch.bool)
    y_BD, _ = memory.step(x_BE, memory.initial_state(3), starts_B)
    assert y_BD.shape == (3, memory.dim_out) and y_BD.isfinite().all()
    assert (memory.dim_in, memory.dim_out) == (4, defaults["width"])


@for_every_memory
def test_options_cannot_change_once_given(name: str) -> None:
    config = MEMORIES[name].config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MEMORIES)
def test_half_precision_is_refused_where_steps_could_not_be_counted(
    name: str, dtype: torch.dtype
) -> None:
    memory = make_memory(name, dim_in=4).to(dtype)
    if name in ("gru", "lstm"):  # which count none
        x_BE, starts_B = torch.zeros(2, 4, dtype=dtype), torch.zeros(2, dtype=torch.bool)
        assert memory.step(x_BE, memory.initial_state(2), starts_B)[0].isfinite().all()
    else:
        with pytest.raises(TypeError, match=rf"{dtype}, in which steps cannot be counted"):
            memory.initial_state(2)

"""What a memory costs, by how far it reaches: time of acting and learning, bytes, peak on a GPU.

    python benchmarks/memory_cost.py                    # cuda if there is one
    python benchmarks/memory_cost.py --reaches 256 1024 --device cpu --out cost_cpu.md

No training: every memory is made to reach back `reach` steps, fed random observations until it is
full, and then measured. Expire-Span is measured as training leaves it, which is with few memories
of that reach (Corridor: about 20), and in the worst case, where it lets nothing go.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from expire_span.memory import Memory, make_memory, state_bytes
from expire_span.memory.expire_span import ExpireSpan
from runs import check_known, command, machine, write

DIM_IN, N_KEPT, RAMP = 64, 32, 16.0
SHARPNESS = 100.0
"""Standard deviation of the span predictor's logits: spans are near 0 or near the longest."""

TRIAL = (32, 128)
"""Environments, and steps of a segment, in which the spans' biases are found."""


def observations(
    shape: tuple[int, int], device: str, generator: torch.Generator | None = None
) -> Tensor:
    """A segment of random observations, of shape (B, T)."""
    return torch.randn(*shape, DIM_IN, device=device, generator=generator)


@torch.no_grad()
def fill(
    memory: Memory,
    reach: int,
    shape: tuple[int, int],
    device: str = "cpu",
    generator: torch.Generator | None = None,
) -> Any:
    """The state after the fewest segments that make more than `reach` steps."""
    state = memory.initial_state(shape[0])
    starts_BT = torch.zeros(shape, dtype=torch.bool, device=device)
    for _ in range(reach // shape[1] + 1):
        state = memory.unroll(observations(shape, device, generator), state, starts_BT)[1]
    return state


def span_logits(memory: ExpireSpan, layer: int, reach: int, generator: torch.Generator) -> Tensor:
    """Logits, without the bias, of the spans of all memories that a layer gets in filling up."""
    weight_D = memory.span_predictor.weight_LD[layer]
    segments: list[Tensor] = []

    def note(module: torch.nn.Module, given: Any, hidden_BTD: Tensor) -> None:
        segments.append(hidden_BTD @ weight_D)

    with memory.layer(layer).norm.register_forward_hook(note):
        fill(memory, reach, TRIAL, generator=generator)
    return torch.cat(segments, 1)


def selective(reach: int) -> Memory:
    """Expire-Span that keeps on average `N_KEPT` memories a layer for `reach` steps, beside the
    latest `RAMP` steps, which every layer holds while they fade.

    The biases are found by trial, the first layer's first: what it keeps is read by the next.
    """
    memory = make_memory("expire-span", dim_in=DIM_IN, max_span=reach, ramp=RAMP)
    assert isinstance(memory, ExpireSpan)
    share, generator = min(N_KEPT / reach, 0.5), torch.Generator().manual_seed(1)
    weight_LD, bias_L = memory.span_predictor.weight_LD, memory.span_predictor.bias_L
    with torch.no_grad():
        weight_LD.copy_(SHARPNESS * torch.nn.functional.normalize(torch.randn_like(weight_LD)))
        bias_L.fill_(-10 * SHARPNESS)  # until its own is found a layer keeps nothing
        for layer in range(memory.n_layers):
            logits_BT = span_logits(memory, layer, reach, generator)
            bias_L[layer] = -logits_BT.quantile(1 - share)
    return memory


def compressive(reach: int) -> Memory:
    """A quarter of the reach step by step, the rest in groups of 4 steps."""
    return make_memory(
        "compressive", dim_in=DIM_IN, window=reach // 4, n_compressed=3 * reach // 16, compression=4
    )


MEMORIES: dict[str, Callable[[int], Memory]] = {
    f"expire-span, keeps {N_KEPT}": selective,
    "expire-span, keeps all": lambda reach: make_memory(
        "expire-span", dim_in=DIM_IN, max_span=2 * reach, initial_span=0.5, ramp=RAMP
    ),
    "transformer-xl": lambda reach: make_memory("transformer-xl", dim_in=DIM_IN, window=reach),
    "adaptive-span": lambda reach: make_memory(
        "adaptive-span", dim_in=DIM_IN, max_span=2 * reach, initial_span=0.5, ramp=RAMP
    ),
    "compressive": compressive,
    "lstm": lambda reach: make_memory("lstm", dim_in=DIM_IN),
}
"""How each memory is made that reaches back so many steps; an lstm has no reach of its own."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    memories: tuple[str, ...] = tuple(MEMORIES)
    """Memories, names as in the table."""
    reaches: tuple[int, ...] = (256, 1024, 4096, 16384)
    """Steps back that a memory can read, multiples of 16."""
    n_envs: int = 16
    """Environments."""
    n_steps: int = 128
    """Steps of a segment that is learned from."""
    rounds: int = 7
    """Measurements; the medians are reported. Memories take turns in each."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """PyTorch device; auto takes the GPU if there is one."""
    out: Path = field(default=Path("docs/benchmarks/memory_cost.md"))
    """File the table is written to; the picture lies beside it."""


class Cost(NamedTuple):
    """What was measured of one memory with one reach."""

    live: float | None
    state_kib: float
    acting_ms: float
    learning_ms: float
    peak_mib: float | None


def seconds(work: Callable[[], Any], device: str) -> float:
    """Wall-clock time of `work`, the device's included."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


class Subject:
    """A memory, full, on a device."""

    def __init__(self, make: Callable[[int], Memory], reach: int, options: Options, device: str):
        torch.manual_seed(0)
        self.memory, self.device = make(reach).to(device), device
        self.shape = (options.n_envs, options.n_steps)
        self.acting: list[float] = []
        self.learning: list[float] = []
        self.state = fill(self.memory, reach, self.shape, device)

    def observations(self) -> Tensor:
        return observations(self.shape, self.device)

    def starts(self) -> Tensor:
        return torch.zeros(self.shape, dtype=torch.bool, device=self.device)

    def act(self) -> None:
        """A segment, step by step."""
        x_BTE, state, starts_BT = self.observations(), self.state, self.starts()
        for t in range(self.shape[1]):
            state = self.memory.step(x_BTE[:, t], state, starts_BT[:, t])[1]

    def learn(self) -> None:
        """A segment at once, forward and backward."""
        self.memory.zero_grad()
        y_BTD, _, aux = self.memory.unroll(self.observations(), self.state, self.starts())
        loss = y_BTD.square().mean() + 1e-4 * aux.span_loss
        if aux.memory_loss is not None:
            loss = loss + aux.memory_loss
        loss.backward()  # type: ignore[no-untyped-call]

    def measure(self) -> None:
        """One more measurement of both."""
        self.acting.append(seconds(self.act, self.device) / self.shape[1])
        self.learning.append(seconds(self.learn, self.device))

    def cost(self) -> Cost:
        """Medians of the measurements; the peak is of one more segment learned from."""
        peak = None
        if self.device == "cuda":
            self.memory.zero_grad()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.learn()
            held = state_bytes(self.state)
            peak = (torch.cuda.max_memory_allocated() - before + held) / 2**20
        live = self.memory.live(self.state)
        return Cost(
            None if live is None else float(live.count_BL().float().mean()),
            state_bytes(self.state) / 2**10 / self.shape[0],
            1e3 * statistics.median(self.acting),
            1e3 * statistics.median(self.learning),
            peak,
        )


def measure(options: Options, device: str, reach: int) -> dict[str, Cost | None]:
    """Every memory with one reach, in turns; None where the device has too little memory."""
    subjects, costs = {}, {}
    for name in options.memories:
        try:
            subjects[name] = Subject(MEMORIES[name], reach, options, device)
            subjects[name].measure()  # libraries load, memory is allocated
        except torch.cuda.OutOfMemoryError:
            subjects.pop(name, None)
    for subject in subjects.values():
        subject.acting.clear()
        subject.learning.clear()
    for _ in range(options.rounds):
        for subject in subjects.values():
            subject.measure()
    for name in options.memories:
        costs[name] = subjects[name].cost() if name in subjects else None
    return costs


def table_row(name: str, reach: int, cost: Cost | None) -> str:
    """One line of the table."""
    if cost is None:
        return f"| {reach:,} | {name} | | | out of memory | | |"
    cells = [
        f"{reach:,}",
        name,
        "" if cost.live is None else f"{cost.live:,.0f}",
        f"{cost.state_kib:,.0f}",
        f"{cost.acting_ms:.2f}",
        f"{cost.learning_ms:.1f}",
        "" if cost.peak_mib is None else f"{cost.peak_mib:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def write_figure(out: Path, costs: dict[int, dict[str, Cost | None]]) -> None:
    """Cost against reach, on logarithmic axes: one panel for each kind of cost measured."""
    panels = {
        "acting, ms a step": "acting_ms",
        "learning, ms a segment": "learning_ms",
        "state, KiB an environment": "state_kib",
        "peak of learning, MiB": "peak_mib",
    }
    measured = [cost for row in costs.values() for cost in row.values() if cost is not None]
    if all(cost.peak_mib is None for cost in measured):
        del panels["peak of learning, MiB"]
    figure = Figure(figsize=(9, 7), layout="constrained")
    all_axes = figure.subplots(2, 2).flatten()
    for axes, (title, field_name) in zip(all_axes, panels.items(), strict=False):
        for number, name in enumerate(next(iter(costs.values()))):
            points = [
                (reach, getattr(cost, field_name))
                for reach, row in costs.items()
                if (cost := row[name]) is not None
            ]
            if points:
                width = 5 - 0.7 * number  # equal curves stay visible below one another
                axes.plot(*zip(*points, strict=True), "o-", lw=width, ms=2 + width, label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(costs), [f"{reach:,}" for reach in costs])
        axes.set_yscale("log")
        low, high = map(math.log10, axes.get_ylim())
        axes.set_ylim(10 ** math.floor(low), 10 ** math.ceil(high))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("reach, steps")
        axes.set_title(title)
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.savefig(out.with_suffix(".png"), dpi=100)


def main(options: Options) -> None:
    """Measure, then write table and picture."""
    check_known("memories", options.memories, tuple(MEMORIES))
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    costs, rows = {}, []
    for reach in options.reaches:
        costs[reach] = measure(options, device, reach)
        rows += [table_row(name, reach, cost) for name, cost in costs[reach].items()]
        print("\n".join(rows[-len(costs[reach]) :]), flush=True)
    where = torch.cuda.get_device_name() if device == "cuda" else "cpu, one thread"
    text = f"""# What a memory costs

Written by {command()}: width 64, 2 layers, 4 heads, float32, {options.n_envs}
environments; no training, random observations, memories full. Acting: one step of all environments.
Learning: a segment of {options.n_steps} steps, forward and backward. Live: mean per layer, the present
step included; of those that "keeps {N_KEPT}" has, about {N_KEPT} in each layer last for the whole reach, the
others are the latest {RAMP:.0f} steps, which fade. State: what is carried between
segments. Peak: device memory taken at most while learning from one segment, its state included and
the parameters aside. An lstm has no reach of its own. Medians of {options.rounds} rounds in which the memories take turns.
{where}; {machine()}.

| reach | memory | live | state, KiB an environment | acting, ms a step | learning, ms a segment | peak, MiB |
|---|---|---|---|---|---|---|
"""
    picture = f"![cost by reach]({options.out.stem}.png)"
    write(options.out, text + "\n".join(rows) + f"\n\n{picture}\n")
    write_figure(options.out, costs)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

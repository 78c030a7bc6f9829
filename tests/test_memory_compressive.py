"""What `compressive` remembers of which step, and what trains its compression.

B environments, T steps, E input features, D width, c steps of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expire_span.memory import Compressive, CompressiveConfig

E, WINDOW, GROUP, N_COMPRESSED = 5, 4, 3, 2


def build() -> Compressive:
    """One layer, in double precision, so that a difference is a mistake."""
    torch.manual_seed(0)
    config = CompressiveConfig(
        width=8,
        n_layers=1,
        n_heads=2,
        window=WINDOW,
        compression=GROUP,
        n_compressed=N_COMPRESSED,
    )
    memory = Compressive(E, config).double()
    with torch.no_grad():
        memory.layer(0).attention.age_mix_HJ.normal_()
    return memory


def expected_output(memory: Compressive, x_TE: Tensor) -> Tensor:
    """What the last step of an episode gives, from the definition."""
    layer, last = memory.layer(0), len(x_TE) - 1
    x_TD = memory.embed(x_TE)
    z_TD = layer.norm(x_TD)
    memories, ages = [], []
    groups = [range(first, first + GROUP) for first in range(0, len(x_TE), GROUP)]
    compressed = [group for group in groups if last - group[-1] >= WINDOW]
    for group in compressed[-N_COMPRESSED:]:
        memories.append(memory.compressors[0](z_TD[list(group)].flatten()))
        ages.append(last - group[-1])
    for step in range(len(compressed) * GROUP, last):
        memories.append(z_TD[step])
        ages.append(last - step)
    read_D = torch.zeros_like(z_TD[0])
    if memories:
        heads, d = [], len(read_D) // 2
        memory_KD, age_K1 = torch.stack(memories), torch.tensor(ages).to(z_TD)[:, None]
        w_key_DD, w_value_DD = layer.attention.key_value.weight.chunk(2)
        for h in range(2):
            rows = slice(h * d, (h + 1) * d)
            q_d = layer.attention.query.weight[rows] @ z_TD[last]
            bias_K = torch.exp(-age_K1 / 4.0 ** torch.arange(8)) @ layer.attention.age_mix_HJ[h]
            a_K = torch.exp((memory_KD @ w_key_DD[rows].T) @ q_d / d**0.5 + bias_K)
            heads.append(a_K / (1 + a_K.sum()) @ (memory_KD @ w_value_DD[rows].T))
        read_D = layer.attention.out(torch.cat(heads))
    return memory.final_norm(layer.finish(x_TD[last], read_D))  # type: ignore[no-any-return]


def test_outputs_follow_the_definition() -> None:
    memory, T = build(), 30
    x_BTE = torch.randn(1, T, E, dtype=torch.float64)
    starts_BT = torch.zeros(1, T, dtype=torch.bool)
    y_BTD, _, aux = memory.unroll(x_BTE, memory.initial_state(1), starts_BT)
    for t in range(T):
        torch.testing.assert_close(y_BTD[0, t], expected_output(memory, x_BTE[0, : t + 1]))
    assert aux.live_BTL is not None
    assert aux.live_BTL.max() == WINDOW + GROUP - 2 + N_COMPRESSED


def test_a_group_is_live_for_all_of_its_steps() -> None:
    memory = build()
    state = memory.initial_state(1)
    for t in range(12):  # groups of steps 0 to 2 and 3 to 5, then single steps
        x_BE = torch.randn(1, E, dtype=torch.float64)
        _, state = memory.step(x_BE, state, torch.tensor([t == 0]))
    live = memory.live(state)
    assert live.count_BL().tolist() == [[2 + 6]]
    ages = live.step_ages_BLSc()
    assert sorted(ages[ages.isfinite()].tolist()) == list(range(12))


def test_reconstruction_trains_the_compression_and_nothing_else() -> None:
    memory = build()
    x_BTE = torch.randn(2, 20, E, dtype=torch.float64)
    starts_BT = torch.zeros(2, 20, dtype=torch.bool)
    y_BTD, _, aux = memory.unroll(x_BTE, memory.initial_state(2), starts_BT)
    assert aux.memory_loss is not None and aux.memory_loss > 0
    compressor = list(memory.compressors.parameters())
    others = [p for name, p in memory.named_parameters() if not name.startswith("compressors")]
    by_loss = torch.autograd.grad(
        aux.memory_loss, [*compressor, *others], retain_graph=True, allow_unused=True
    )
    assert all(grad is not None and grad.any() for grad in by_loss[: len(compressor)])
    assert all(grad is None or not grad.any() for grad in by_loss[len(compressor) :])
    by_task = torch.autograd.grad(y_BTD.square().sum(), compressor, allow_unused=True)
    assert all(grad is None for grad in by_task)


def test_reconstruction_knows_no_other_episode_and_no_other_environment() -> None:
    memory, T = build(), 20
    first_1TE, second_1TE = torch.randn(2, 1, T, E, dtype=torch.float64)
    begins_1T = torch.arange(T)[None] == 0

    def gradient(x_BTE: torch.Tensor, starts_BT: torch.Tensor) -> torch.Tensor:
        _, _, aux = memory.unroll(x_BTE, memory.initial_state(len(x_BTE)), starts_BT)
        assert aux.memory_loss is not None
        return torch.autograd.grad(aux.memory_loss, list(memory.compressors.parameters()))[0]

    beside = gradient(torch.cat([first_1TE, second_1TE]), begins_1T.expand(2, -1))
    behind = gradient(torch.cat([first_1TE, second_1TE], 1), torch.cat([begins_1T] * 2, 1))
    torch.testing.assert_close(behind, beside)
    short = torch.randn(7, T, E, dtype=torch.float64)  # episodes of one step, which hold no group
    beside_short = gradient(
        torch.cat([first_1TE, short]), torch.cat([begins_1T, torch.ones(7, T, dtype=torch.bool)])
    )
    torch.testing.assert_close(beside_short, gradient(first_1TE, begins_1T))


def test_compression_learns_to_keep_what_is_read() -> None:
    memory = build()
    x_BTE = torch.randn(8, 40, E, dtype=torch.float64)
    starts_BT = torch.zeros(8, 40, dtype=torch.bool)
    optimizer = torch.optim.Adam(memory.compressors.parameters(), lr=1e-2)
    losses = []
    for _ in range(100):
        loss = memory.unroll(x_BTE, memory.initial_state(8), starts_BT)[2].memory_loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]

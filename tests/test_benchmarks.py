"""The tables and pictures in docs/benchmarks are written from the files the runs left."""

from __future__ import annotations

import importlib
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from expire_span.agents.span_control import make_span_control
from expire_span.training import parse
from expire_span.training.folder_lock import FolderLock

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def write_run(folder: Path, success: float, live: list[float] | None, solved_at: int) -> None:
    folder.mkdir(parents=True)
    figures = {
        "success_rate": success,
        "mean_reward": success,
        "live_memory_mean": live,
        "env_steps": 9000,
        "env_steps_per_second": 1000.0,
    }
    (folder / "evaluation.json").write_text(json.dumps(figures))
    # one short episode that happened to succeed is not a solved task
    rows = [(500, 1.0), (1000, ""), (2000, 0.5), (solved_at, 0.99), (solved_at + 1000, 0.97)]
    text = "time/total_timesteps,rollout/success_rate,rollout/ep_rew_mean,rollout/ep_len_mean\n"
    (folder / "metrics.csv").write_text(text + "".join(f"{t},{s},{s},20\n" for t, s in rows))


def cells(table: str, first: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def corridor(importable: None) -> Any:
    return importlib.import_module("corridor")


def test_corridor_sums_up_the_seeds(corridor: Any, tmp_path: Path) -> None:
    for seed, (success, live) in enumerate([(0.98, [10.0, 20.0]), (1.0, [12.0, 22.0])]):
        write_run(tmp_path / "runs" / f"ppo_expire-span_{seed}", success, live, 4000 + seed * 2000)
    write_run(tmp_path / "runs" / "ppo_lstm_0", 0.4, None, 9000)
    out = tmp_path / "docs" / "table.md"
    corridor.write_table(corridor.Options(runs=tmp_path / "runs", out=out))
    row = cells(out.read_text(), "expire-span")
    assert row[1:] == ["ppo", "2", "2 of 2", "5,000", "0.990", "0.980", "0.97", "16.0", "1,000"]
    assert cells(out.read_text(), "lstm")[8] == ""


def test_runs_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = importlib.import_module("runs")
    monkeypatch.setattr(runs.subprocess, "run", pytest.fail)  # nothing here may begin a real run
    write_run(tmp_path / "ppo_none_0", 0.5, [0.0], 4000)
    before = (tmp_path / "ppo_none_0" / "evaluation.json").read_bytes()
    runs.train(runs.Run(tmp_path / "ppo_none_0", ["--memory", "none"]))
    assert (tmp_path / "ppo_none_0" / "evaluation.json").read_bytes() == before


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = importlib.import_module("runs")
    commands: list[list[str]] = []
    monkeypatch.setattr(runs.subprocess, "run", lambda command, **_: commands.append(command))
    saved, unsaved = tmp_path / "saved", tmp_path / "unsaved"
    for folder in (saved, unsaved):
        folder.mkdir()
        (folder / "config.yaml").touch()
    (saved / "model.zip").touch()
    for folder in (saved, unsaved, tmp_path / "new"):
        runs.train(runs.Run(folder, ["--seed", "1"]))
    places = [command[-5:-3] for command in commands]
    new = [["--run-dir", str(folder)] for folder in (unsaved, tmp_path / "new")]
    assert places == [["--resume", str(saved)], *new]
    assert (saved / "config.yaml").exists() and not unsaved.exists()


def test_a_run_that_another_process_trains_is_left_alone(tmp_path: Path) -> None:
    runs = importlib.import_module("runs")
    lock = FolderLock(tmp_path)
    assert lock.take()
    with pytest.raises(SystemExit, match="is being trained by another process"):
        runs.train(runs.Run(tmp_path, ["--seed", "1"]))
    assert (tmp_path / ".lock").exists()
    lock.release()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("memory_cost", {"memories": ("foo",)}, r"unknown memories \['foo'\]; known: expire"),
        ("corridor", {"algos": ("ppp",)}, r"unknown algorithms \['ppp'\]; known: ppo"),
        ("retention", {"span_coefs": ("foo",)}, "span_coef = 'foo' is neither 'auto' nor a number"),
    ],
)
def test_unknown_names_are_told(name: str, options: dict[str, Any], message: str) -> None:
    module = importlib.import_module(name)
    with pytest.raises(SystemExit, match=message):
        module.main(module.Options(**options))


def test_memory_size_has_a_point_for_every_size(tmp_path: Path) -> None:
    memory_size = importlib.import_module("memory_size")
    for seed, success in enumerate((0.5, 0.7)):
        write_run(tmp_path / "runs" / f"corridor_transformer-xl-16_{seed}", success, [15.0], 4000)
    write_run(tmp_path / "runs" / "corridor_expire-span-auto_0", 1.0, [16.0, 18.0], 4000)
    out = tmp_path / "docs" / "table.md"
    memory_size.write_table(memory_size.Options(runs=tmp_path / "runs", out=out))
    text = out.read_text()
    assert cells(text, "corridor | transformer-xl-16")[2:] == [
        "2", "15.0", "0.600", "0.500 to 0.700", "0.97", "1,000"
    ]  # fmt: skip
    assert cells(text, "corridor | expire-span-auto")[3] == "17.0"
    assert out.with_suffix(".png").stat().st_size > 10_000


def test_rows_stay_until_as_many_seeds_have_been_run(tmp_path: Path) -> None:
    memory_size = importlib.import_module("memory_size")
    out = tmp_path / "docs" / "table.md"

    def written_from(folder: str, *success: float) -> str:
        for seed, share in enumerate(success):
            write_run(tmp_path / folder / f"portal_lstm-64_{seed}", share, None, 4000)
        memory_size.write_table(memory_size.Options(runs=tmp_path / folder, out=out))
        return cells(out.read_text(), "portal | lstm-64")[4]

    assert written_from("first", 0.25, 0.5) == "0.375"
    write_run(tmp_path / "fewer" / "corridor_lstm-64_0", 0.9, None, 4000)
    assert written_from("fewer", 0.75) == "0.375"
    assert cells(out.read_text(), "corridor | lstm-64")[4] == "0.900"
    assert written_from("as_many", 0.75, 0.5) == "0.625"
    assert out.read_text().count("| corridor |") == 1


def test_minigrid_memory_sums_up_the_seeds(tmp_path: Path) -> None:
    minigrid_memory = importlib.import_module("minigrid_memory")
    for seed, solved_at in enumerate((4000, 6000)):
        write_run(tmp_path / "runs" / f"MemoryS7_lstm_{seed}", 0.97, None, solved_at)
    out = tmp_path / "docs" / "table.md"
    minigrid_memory.write_table(minigrid_memory.Options(runs=tmp_path / "runs", out=out))
    row = cells(out.read_text(), "MemoryS7 | lstm")
    ranged = ["0.970", "0.970 to 0.970"]
    assert row[2:] == ["2", "9,000", *ranged, *ranged, "2 of 2", "5,000", "", "1,000"]
    assert out.with_suffix(".png").stat().st_size > 10_000


def retention_row(folder: Path, name: str, *rows: str) -> list[str]:
    """The line of the table that a run's evaluations make."""
    module = importlib.import_module("retention")
    runs, out = folder / "runs", folder / "docs" / "table.md"
    runs.mkdir()
    text = "\n".join(["steps,success,cue_recall,live,success_drawn", *rows]) + "\n"
    options = module.Options(runs=runs, out=out)
    (runs / f"{module.stem(options)}_{name}_0.csv").write_text(text)
    other = module.Options(runs=runs, out=out, steps=100)
    (runs / f"{module.stem(other)}_{name}_1.csv").write_text(text)
    module.write_table(options)
    assert out.with_suffix(".png").stat().st_size > 10_000
    assert "U(3,30)" in out.read_text() and "(table.png)" in out.read_text()
    assert out.read_text().count(f"| {name} |") == 1  # the run of other options is not shown
    return cells(out.read_text(), name)


def test_retention_counts_from_the_first_solved_evaluation(tmp_path: Path) -> None:
    row = retention_row(
        tmp_path,
        "auto",
        "50000,0.7,1.0,30.0,0.5",
        "100000,0.99,1.0,12.0,0.99",
        "150000,0.98,0.7,9.0,0.97",
        "200000,1.0,0.8,9.5,1.0",
    )
    assert row[1:7] == ["0", "100,000", "100,000", "0.980", "1.000", "0.970"]
    assert row[7:] == ["0.700", "9.0", "12.0", "9.5"]


def test_retentions_table_says_which_command_made_it() -> None:
    module = importlib.import_module("retention")
    assert module.command(module.Options()) == "python benchmarks/retention.py"
    longer = module.Options(max_length=200, initial_span=0.04, seeds=(7,))
    said = "python benchmarks/retention.py --max-length 200 --initial-span 0.04"
    assert module.command(longer) == said


def test_a_run_that_is_never_solved_is_not_said_to_be(tmp_path: Path) -> None:
    rows = ("50000,0.7,1.0,30.0,0.5", "100000,0.9,0.9,20.0,0.8", "150000,0.8,1.0,25.0,0.6")
    row = retention_row(tmp_path, "1e-3", *rows)
    assert row[1:7] == ["0", "never", "", "0.700", "0.800", "0.500"]
    assert row[7:] == ["0.900", "20.0", "30.0", "25.0"]


def test_a_constant_pressure_fits_every_preset() -> None:
    module = importlib.import_module("memory_size")
    for env_id, (name, words) in product(module.TASKS.values(), module.VARIANTS.items()):
        if "coef" in name:
            kwargs = parse(["--env", env_id, *words]).algorithm.algorithm_kwargs("expire-span")
            make_span_control(kwargs["span_coef"], kwargs["target_live"], kwargs["use_by"])


def test_environments_are_all_measured(tmp_path: Path) -> None:
    environments = importlib.import_module("environments")
    out = tmp_path / "docs" / "table.md"
    environments.main(environments.Options(n_envs=2, steps=5, repeats=1, out=out))
    for env_id in environments.ENVIRONMENTS:
        assert int(cells(out.read_text(), f"`{env_id}`")[1].replace(",", "")) > 0


def test_of_a_curriculum_the_last_stage_alone_counts_as_solving(tmp_path: Path) -> None:
    runs = importlib.import_module("runs")
    rows = [(4000, 1.0, 0), (8000, 1.0, 0), (9000, 1.0, 1), (12000, 0.6, 1), (14000, 0.99, 1)]
    text = "time/total_timesteps,rollout/success_rate,curriculum/stage,rollout/ep_len_mean\n"
    (tmp_path / "metrics.csv").write_text(text + "".join(f"{t},{s},{n},20\n" for t, s, n in rows))
    assert runs.steps_to(0.95, "rollout/success_rate", tmp_path) == 14000
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("14000,,,\n")  # which a training closes with
    assert runs.steps_to(0.95, "rollout/success_rate", tmp_path) == 14000


def test_the_first_and_shortest_episodes_solve_nothing(tmp_path: Path) -> None:
    runs = importlib.import_module("runs")
    rows = [(1280, 1.0, 10), (20000, 0.5, 200), (30000, 0.99, 150)]
    text = "time/total_timesteps,rollout/success_rate,rollout/ep_len_mean\n"
    (tmp_path / "metrics.csv").write_text(text + "".join(f"{t},{s},{n}\n" for t, s, n in rows))
    assert runs.steps_to(0.99, "rollout/success_rate", tmp_path) == 30000


def test_memory_cost_grows_with_what_is_kept(tmp_path: Path) -> None:
    memory_cost = importlib.import_module("memory_cost")
    out = tmp_path / "docs" / "table.md"
    memory_cost.main(
        memory_cost.Options(
            memories=("expire-span, keeps 32", "expire-span, keeps all", "transformer-xl", "lstm"),
            reaches=(64, 1024),
            n_envs=2,
            n_steps=64,
            rounds=1,
            device="cpu",
            out=out,
        )
    )
    text = out.read_text()

    def figure(reach: str, memory: str, column: int) -> float:
        return float(cells(text, f"{reach} | {memory}")[column].replace(",", ""))

    live, state = 2, 3
    assert figure("1,024", "transformer-xl", live) == 1025  # the present step among them
    assert figure("1,024", "expire-span, keeps all", live) == 1024 + 16
    assert 20 < figure("1,024", "expire-span, keeps 32", live) < 100
    for memory, grows in (("expire-span, keeps 32", False), ("transformer-xl", True)):
        growth = figure("1,024", memory, state) / figure("64", memory, state)
        assert (growth > 8) is grows, (memory, growth)
    assert cells(text, "64 | lstm")[live] == cells(text, "64 | lstm")[6] == ""
    assert out.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.parametrize("reach", [256, 1024])
def test_memory_cost_keeps_as_many_in_every_layer_as_its_name_says(reach: int) -> None:
    memory_cost = importlib.import_module("memory_cost")
    subject = memory_cost.Subject(
        memory_cost.selective, reach, memory_cost.Options(n_envs=64), "cpu"
    )
    span_BLS = subject.memory.spans(subject.state.hidden_BLSD, slice(None))
    kept_BLS = subject.state.age_BLS.isfinite() & (span_BLS > memory_cost.RAMP)
    for kept in kept_BLS.sum(-1).float().mean(0).tolist():
        assert abs(kept / memory_cost.N_KEPT - 1) < 0.25, kept

"""A search over settings: spaces, the toggle, honesty; and (slow) Ray on one machine, on two nodes, killed."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w
import torch

from conftest import SMALL, quiet, small, small_pairs
from synapse_diffusion.config import ExecutionSettings, dump_recipe, parse_recipe
from synapse_diffusion.convert import convert_pairs
from synapse_diffusion.errors import RunError, SettingsError, StoppedError
from synapse_diffusion.runs import Run
from synapse_diffusion.store.files import read_table
from synapse_diffusion.train import Report, judge, train
from synapse_diffusion.training.data import open_stores
from synapse_diffusion.training.parts import make_folds
from synapse_diffusion.training.sources import open_sources
from synapse_diffusion.training.tasks import make_task
from synapse_diffusion.tune.machine import Machine, Node, choose
from synapse_diffusion.tune.results import Found, Row, Status
from synapse_diffusion.tune.space import check_space, corners, decode, is_whole, n_steps, own_point, with_values
from synapse_diffusion.tune.stage import _plan

SPACE: dict[str, Any] = {
    "train.learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
    "model.components": {"choices": [4, 0]},
    "train.batch": {"low": 32, "high": 64, "step": 16},
}
COMMAND = [sys.executable, "-c", "from synapse_diffusion.cli import main; main()"]


def test_a_space_is_written_with_dotted_keys_or_in_tables() -> None:
    flat = parse_recipe({"tune": {"space": SPACE}})
    inner = {"train": {"learning_rate": SPACE["train.learning_rate"], "batch": SPACE["train.batch"]}}
    nested = parse_recipe({"tune": {"space": {**inner, "model": {"components": SPACE["model.components"]}}}})
    assert dict(flat.tune.space) == dict(nested.tune.space)
    assert parse_recipe(tomllib.loads(dump_recipe(flat))) == flat
    assert flat.digest() == parse_recipe({}).digest(), "a search changes no decoder"
    check_space(flat)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "tune.space is empty: name what is to be tried"),
        ({"train.steps": {"low": 9, "high": 9}}, "tune.space.train.steps: is empty: low = 9 must be below high = 9"),
        ({"train.steps": {"low": 9}}, "tune.space.train.steps: needs low and high, or choices"),
        ({"train.steps": {"low": 1, "high": 9, "choices": [1, 2]}}, "has choices and a range"),
        ({"train.steps": {"low": "a", "high": 9}}, "tune.space.train.steps.low = 'a': give a number"),
        ({"train.steps": {"lo": 1}}, "tune.space.train.steps.lo = 1: no such key; nearest is tune.space.train"),
        ({"train.noise": {"low": 0.0, "high": 1.0, "log": True}}, "log = true needs low above 0"),
        ({"train.steps": {"low": 1, "high": 9, "step": 20}}, "step = 20 must be above 0 and at most high - low = 8"),
        ({"train.steps": {"low": 2, "high": 8, "step": 2.0}}, "tune.space: train.steps = 2.0: Input should be a valid"),
        ({"model.name": {"choices": ["compact"]}}, "needs two or more different values"),
        ({"model.widht": {"low": 1, "high": 3}}, "tune.space: model.widht = 1: no such key; nearest is model.width"),
        ({"modle.width": {"low": 1, "high": 3}}, "no such key; nearest is model"),
        ({"train.steps.x": {"low": 1, "high": 3}}, "train.steps.x: no such key; steps is a value, not a branch"),
        ({"train.ema": {"low": 0.5, "high": 1.5}}, "tune.space: train.ema = 1.5: Input should be less than 1"),
        ({"train.steps": {"low": 1.5, "high": 3.5}}, "tune.space: train.steps = 1.5: Input should be a valid integer"),
        ({"model.name": {"choices": ["compact", "atm"]}, "model.layers": {"low": 1, "high": 3}},
         "layers is a setting of atm, brain_module, not of compact"),
        ({"split.seed": {"low": 0, "high": 3}}, "split.seed: trials would not be judged on the same data"),
        ({"train.seed": {"low": 0, "high": 3}}, "train.seed changes chance alone"),
    ],
)  # fmt: skip
def test_what_a_space_cannot_hold_is_said_in_one_sentence(space: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_space(parse_recipe({"tune": {"space": space}}))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_codes_stand_for_values_of_the_space() -> None:
    recipe = parse_recipe({"tune": {"space": {**SPACE, "view.baseline": {"choices": ["none", [-0.1, 0.0]]}}}})
    space = recipe.tune.space
    values = decode(space, {"train.learning_rate": 0.001, "model.components": 0, "train.batch": 2, "view.baseline": 1})
    assert values == {
        "train.learning_rate": 0.001, "model.components": 4, "train.batch": 64, "view.baseline": (-0.1, 0.0),
    }  # fmt: skip
    changed = with_values(recipe, values)
    assert (changed.train.batch, changed.view.baseline) == (64, (-0.1, 0.0))
    assert not changed.tune.space
    assert n_steps(space["train.batch"]) == 2
    assert is_whole(recipe, "train.batch")
    assert not is_whole(recipe, "train.learning_rate")
    assert not is_whole(parse_recipe({"tune": {"space": {"train.noise": {"low": 0, "high": 1}}}}), "train.noise")
    assert len(list(corners(space))) == 2**4


def test_the_recipe_itself_is_a_point_of_a_space_that_holds_it() -> None:
    space = {**SPACE, "model.dropout": {"choices": [0.5, "none"]}}
    held = parse_recipe({"train": {"learning_rate": 0.002, "batch": 48}, "tune": {"space": space}})
    point = own_point(held)
    assert point == {"train.learning_rate": 0.002, "model.components": 1, "train.batch": 1, "model.dropout": 1}
    assert with_values(held, decode(held.tune.space, point)) == held.model_copy(update={"tune": parse_recipe({}).tune})
    assert own_point(parse_recipe({"train": {"learning_rate": 0.5}, "tune": {"space": SPACE}})) is None
    assert own_point(parse_recipe({"train": {"batch": 40}, "tune": {"space": SPACE}})) is None


HERE, FOUR_GPUS = Machine((Node(2),)), Machine((Node(32, 4),))
CLUSTER = Machine((Node(0), Node(16, 2), Node(32, 4)), "10.0.0.1:6379")


@pytest.mark.parametrize(
    ("machine", "trials", "execution", "expected", "said"),
    [
        (HERE, 8, {}, (2, 1, 1, 0), "8 trials, 2 at a time, on this machine (2 CPUs, no GPU): each one process"),
        (Machine((Node(64),)), 8, {}, (8, 1, 8, 0), "with 8 CPUs"),
        (Machine((Node(64),)), 4, {"threads": 2}, (4, 1, 2, 0), "with 2 CPUs (execution.threads)"),
        (Machine((Node(1),)), 1, {}, (1, 1, 1, 0), "1 trial, 1 at a time, on this machine (1 CPU, no GPU)"),
        (Machine((Node(16, 1),)), 20, {}, (1, 1, 16, 1), "each one process with the GPU and 16 CPUs"),
        (FOUR_GPUS, 20, {}, (4, 1, 8, 1), "each one process with a GPU and 8 CPUs"),
        (FOUR_GPUS, 3, {}, (3, 1, 8, 1), "3 at a time"),
        (FOUR_GPUS, 20, {"processes": 1}, (4, 1, 8, 1), "with a GPU"),
        (FOUR_GPUS, 20, {"processes": 2, "sharding": "fsdp"}, (2, 2, 8, 1), "2 processes of a GPU (Ray Train, fsdp)"),
        (FOUR_GPUS, 20, {"processes": 4}, (1, 4, 8, 1), "since execution.processes = 4"),
        (FOUR_GPUS, 40, {"device": "cpu"}, (32, 1, 1, 0), "32 at a time"),
        (HERE, 4, {"processes": 2}, (1, 2, 1, 0), "each 2 processes of 1 CPU (Ray Train, ddp)"),
        (CLUSTER, 20, {}, (6, 1, 8, 1), "on the cluster at 10.0.0.1:6379 (3 nodes, 48 CPUs, 6 GPUs)"),
        (CLUSTER, 20, {"processes": 4}, (1, 4, 8, 1), "1 at a time"),
        (Machine((Node(2), Node(2)), "auto"), 8, {}, (4, 1, 1, 0), "(2 nodes, 4 CPUs, no GPU)"),
    ],
)
def test_how_trials_run_follows_from_what_is_there(
    machine: Machine, trials: int, execution: dict[str, Any], expected: tuple[int, ...], said: str
) -> None:
    plan = choose(machine, trials, ExecutionSettings(**execution))
    assert (plan.at_once, plan.processes, plan.cpus, plan.gpus) == expected
    assert said in plan.why
    assert len(plan.why.splitlines()) == 1
    if not plan.gpus:
        assert plan.at_once * plan.processes * plan.cpus <= sum(node.cpus for node in machine.nodes)


@pytest.mark.parametrize(("machine", "processes"), [(FOUR_GPUS, 5), (HERE, 3)])
def test_too_few_for_one_trial_is_said(machine: Machine, processes: int) -> None:
    with pytest.raises(SettingsError, match=rf"execution\.processes = {processes}, but this machine .* has room for"):
        choose(machine, 4, ExecutionSettings(processes=processes))


def test_a_continued_search_gives_its_trials_what_it_was_begun_with(tmp_path: Path) -> None:
    recipe = parse_recipe({"tune": {"trials": 1}})
    assert _plan(tmp_path, HERE, recipe).cpus == 2
    later = _plan(tmp_path, Machine((Node(64),)), recipe)
    assert (later.cpus, later.at_once) == (2, 1)
    with pytest.raises(SettingsError, match="begun with trials of processes 1, cpus 2, gpus 0, which is not what this"):
        _plan(tmp_path, FOUR_GPUS, recipe)
    with pytest.raises(SettingsError, match="begun with trials of processes 1"):
        _plan(tmp_path, HERE, recipe.model_copy(update={"execution": ExecutionSettings(processes=2)}))
    (tmp_path / "plan.json").write_text("broken")
    with pytest.raises(RunError, match=r"plan.json: damaged; remove "):
        _plan(tmp_path, HERE, recipe)


def listening(to: list[tuple[float, float]]) -> Report:
    """Keeps what is reported, and says to go on."""

    def report(share: float, loss: float) -> bool:
        to.append((share, loss))
        return True

    return report


def test_a_search_judges_as_training_does(trained: Run, study: Path, tmp_path: Path) -> None:
    """The same curve as `train`'s choices; nothing else is made; a second call only reads; who says no ends it."""
    recipe, told = small(study, f"paths.runs={tmp_path}"), list[tuple[float, float]]()
    curve = judge(recipe, "x", "test", listening(told))
    columns = ["step", "train_loss", "validation_loss", "validation_score"]
    pd.testing.assert_frame_equal(curve[columns], trained.curve[columns], check_exact=False, rtol=1e-6)
    [run] = tmp_path.glob("x-*")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "fold0_member0.safetensors", "fold0_member0.tsv",
    ]  # fmt: skip
    assert not (run / "predictions").exists()
    losses = curve["validation_loss"]
    assert [loss for _, loss in told] == pytest.approx(list(losses.cummin()))
    assert [share for share, _ in told] == pytest.approx(list(curve["step"] / 60))
    again: list[tuple[float, float]] = []
    judge(recipe, "x", "test", listening(again))
    assert again == [pytest.approx((told[-1][0], min(losses)))]
    with pytest.raises(StoppedError, match="at step 10 of fit 1"):
        judge(small(study, f"paths.runs={tmp_path / 'no'}"), "x", "test", lambda *_: False)


def test_test_trials_are_not_read(study: Path, tmp_path: Path) -> None:
    """Every sample of every test trial is NaN, and the search sees the same losses to the last bit."""
    whole = small(study, f"paths.runs={tmp_path / 'whole'}")
    shutil.copytree(study / "stores", tmp_path / "stores")
    again = ("execution.verify_stores=false", f"paths.stores={tmp_path / 'stores'}")
    poisoned = small(study, f"paths.runs={tmp_path / 'poisoned'}", *again)
    sources = open_sources(poisoned, torch.device("cpu"), quiet)
    [fold] = make_folds(sources, make_task(poisoned, sources), poisoned, quiet)
    epochs = sources.of["eeg"].epochs
    test = np.flatnonzero(fold["eeg"] == "test")
    for k, store in enumerate(open_stores(poisoned, quiet)):
        signal_TC = np.load(store.folder / "signal.npy", mmap_mode="r+")
        for row in test[epochs.trials["store"].to_numpy()[test] == k]:
            start = int(epochs.trials["read_start"].iloc[row])
            signal_TC[start : start + epochs.n_read] = np.nan
        signal_TC.flush()
    reopened = open_sources(poisoned, torch.device("cpu"), quiet).of["eeg"].epochs
    assert len(test) > 50
    assert torch.isnan(reopened.read(test)).all()
    clean, other = (judge(recipe, "x", "test", lambda *_: True) for recipe in (whole, poisoned))
    pd.testing.assert_frame_equal(clean, other, check_exact=True)
    assert np.isfinite(other["validation_loss"]).all()


def test_the_best_of_those_that_finished_is_a_recipe(tmp_path: Path) -> None:
    def row(number: int, status: Status, loss: float | None, rate: float) -> Row:
        values = {"train.learning_rate": rate, "model.components": 4}
        return Row(number, status, loss, 0.5, 1.0, 1.0, "n", "", values)

    space = {key: SPACE[key] for key in ("train.learning_rate", "model.components")}
    recipe = parse_recipe({"train": {"steps": 70}, "tune": {"space": space}})
    rows = [row(1, "finished", 0.7, 1e-3), row(2, "ended", 0.1, 2e-3), row(3, "finished", 0.6, 3e-3)]
    rows.append(row(4, "failed", None, 4e-3))
    found = Found(tmp_path, rows)
    found.write(recipe)
    best = parse_recipe(tomllib.loads((tmp_path / "best.toml").read_text()))
    assert found.best.number == 3
    assert best == with_values(recipe, {"train.learning_rate": 3e-3, "model.components": 4})
    assert best.train.steps == 70
    table = read_table(tmp_path / "trials.tsv")
    assert list(table["status"]) == ["finished", "ended", "finished", "failed"]
    assert (tmp_path / "search.png").stat().st_size > 10_000
    assert "1 failed" in found.said()[0]
    with pytest.raises(RunError, match="no trial could be trained"):
        Found(tmp_path, rows[3:]).write(recipe)
    assert list(read_table(tmp_path / "trials.tsv")["status"]) == ["failed"]


def command(cwd: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys; {before}\nfrom synapse_diffusion.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_without_ray_tune_says_what_to_install_and_train_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(tomli_w.dumps({"tune": {"space": SPACE}}))
    done = command(tmp_path, "tune", "eeg", "small.toml", before="sys.modules['ray'] = None")
    assert done.returncode == 3
    assert done.stderr.strip() == "error: tune needs Ray: pip install 'synapse-diffusion[tune]'"
    bad = command(tmp_path, "tune", "eeg", "small.toml", "--set", "tune.space.model.widht={low=1,high=3}")
    assert bad.returncode == 2
    assert bad.stderr.strip() == "error: tune.space: model.widht = 1: no such key; nearest is model.width"
    nobody = command(tmp_path, "tune", "eeg", "small.toml", "--address", "127.0.0.1:1")
    assert nobody.returncode == 3
    assert "error: --address 127.0.0.1:1: nothing answers" in nobody.stderr
    assert len(nobody.stderr.strip().splitlines()) == 1
    probe = "import synapse_diffusion.train, synapse_diffusion.tune, sys; print({'ray', 'optuna'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", probe], text=True).strip() == "set()"


@dataclass(frozen=True)
class FakeTrial:
    """What a scheduler looks at."""

    trial_id: str


def asked_to_end(folder: Path, progress: int, **settings: Any) -> int:
    """How many of 30 trials of random losses, one after the other, are asked to end at this progress."""
    from synapse_diffusion.tune.study import _scheduler
    from synapse_diffusion.tune.trial import Job

    job = Job({}, "x", "test", str(folder), choose(HERE, 8, ExecutionSettings()))
    scheduler = _scheduler(parse_recipe({"tune": settings}).tune, job)
    scheduler.set_search_properties("loss", "min")
    trials = [FakeTrial(str(k)) for k in range(30)]
    for trial, loss in zip(trials, np.random.default_rng(0).random(30), strict=True):
        scheduler.on_trial_add(None, trial)
        result = {"loss": loss, "progress": progress, "training_iteration": 1}
        assert scheduler.on_trial_result(None, trial, result) == "CONTINUE", "Ray would kill it"
    return sum(job.mark(trial.trial_id).exists() for trial in trials)


def test_settings_of_the_scheduler_are_noticed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    third = asked_to_end(tmp_path / "a", 300)
    assert 0 < asked_to_end(tmp_path / "b", 300, reduction=2) < third < 30
    assert asked_to_end(tmp_path / "c", 150) == 0
    assert asked_to_end(tmp_path / "d", 150, grace=0.1) == third
    assert asked_to_end(tmp_path / "e", 300, stopping=False) == 0


def test_settings_of_the_search_are_noticed() -> None:
    """The recipe's own point comes first; seeds and ways to search lead elsewhere; all points are recipes."""
    pytest.importorskip("ray")
    from synapse_diffusion.tune.study import _domains, _search

    def second(**settings: Any) -> dict[str, Any]:
        recipe = parse_recipe({"train": {"batch": 48}, "tune": {"space": SPACE, **settings}})
        algorithm = _search(recipe, 1)
        first: dict[str, Any] = algorithm.suggest("a")
        assert first == own_point(recipe)
        found: dict[str, Any] = algorithm.suggest("b")
        return found

    pytest.importorskip("optuna")
    assert second(seed=0) == second(seed=0) != second(seed=1)
    every = {**SPACE, "train.patience": {"low": 1, "high": 3}, "train.checks": {"low": 2, "high": 9, "log": True}}
    recipe = parse_recipe({"tune": {"space": every}})
    for _ in range(30):
        point = {key: domain.sample() for key, domain in _domains(recipe).items()}
        values = decode(recipe.tune.space, point)
        with_values(recipe, values)
        assert 3e-4 <= values["train.learning_rate"] <= 1e-2
        assert values["train.batch"] in (32, 48, 64)
        assert values["train.patience"] in (1, 2, 3)
    random = parse_recipe({"tune": {"space": SPACE, "search": "random"}})
    assert type(_search(random, 1)).__name__ == "BasicVariantGenerator"


# ---- Ray itself: minutes ----


@pytest.fixture
def tuned(study: Path, tmp_path: Path) -> Path:
    """A folder with the small study's stores and a recipe that is to be searched over."""
    (tmp_path / "stores").symlink_to(study / "stores")
    (tmp_path / "bids").symlink_to(study / "bids")
    tree = {
        **SMALL, "paths": {"bids": "bids", "stores": "stores", "runs": "runs"},
        "train": {"steps": 400, "checks": 40, "patience": 40, "batch": 48, "baselines": False},
        "tune": {"space": SPACE, "trials": 6},
    }  # fmt: skip
    (tmp_path / "small.toml").write_text(tomli_w.dumps(tree))
    return tmp_path


def started(cwd: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "tune", "eeg", "small.toml", *arguments], cwd=cwd, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, start_new_session=True,
    )  # fmt: skip


def heard(process: subprocess.Popen[str], n: int, seconds: float = 150) -> list[str]:
    """What it says until it has said how `n` trials ended."""
    assert process.stdout is not None
    lines: list[str] = []
    deadline = time.monotonic() + seconds
    while sum(line.startswith("trial ") for line in lines) < n and time.monotonic() < deadline:
        line = process.stdout.readline()
        assert line, "".join(lines)
        lines.append(line)
    return lines


def numbers(lines: list[str]) -> set[int]:
    return {int(line.split()[1].rstrip(":")) for line in lines if line.startswith("trial ")}


def table(cwd: Path) -> pd.DataFrame:
    [path] = cwd.glob("runs/tune-*/trials.tsv")
    return read_table(path)


@pytest.mark.slow
def test_a_killed_search_goes_on_and_repeats_nothing(tuned: Path) -> None:
    few = ("--set", "tune.stopping=false", "--set", "train.steps=200", "--set", "train.checks=20")
    process = started(tuned, *few)
    before = heard(process, 2)
    [folder] = tuned.glob("runs/tune-*")
    deadline = time.monotonic() + 60
    while not any("TERMINATED" in path.read_text() for path in folder.glob("ray/experiment_state-*.json")):
        assert time.monotonic() < deadline, "Ray wrote nothing about a trial that is done"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    finished = numbers([*before, *rest.splitlines()])
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*/checkpoints/fold0_member0.*")}
    assert not (folder / "best.toml").exists()
    time.sleep(5)  # until what Ray had started has seen that its head is gone

    done = command(tuned, "tune", "eeg", "small.toml", *few)
    assert done.returncode == 0, done.stderr
    after = numbers(done.stdout.splitlines())
    assert "an earlier search is continued; its finished trials stand" in done.stdout
    assert finished - after, "trials that had finished were asked again"
    assert kept
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items()), "trained again"
    rows = table(tuned)
    assert list(rows["status"]) == ["finished"] * 6
    assert (folder / "search.png").exists()

    best = parse_recipe(tomllib.loads((folder / "best.toml").read_text()))
    whole = best.model_copy(update={"paths": small(tuned).paths})
    curve = train(whole, "best", "test", quiet, quiet).curve
    assert curve["validation_loss"].min() == pytest.approx(rows["loss"].astype(float).min())


@pytest.mark.slow
def test_a_trial_in_two_processes_is_the_trial_in_one(tuned: Path) -> None:
    """Ray Train's TorchTrainer, gloo; random search from the recipe's own values on; the scheduler ends a group."""
    tree = tomllib.loads((tuned / "small.toml").read_text())
    rates = {"train.learning_rate": {"low": 1e-7, "high": 3e-3, "log": True}}
    tree["tune"] = {"space": rates, "search": "random", "trials": 2, "grace": 0.02}
    train = {"steps": 2400, "checks": 48, "batch": 48, "patience": 5}  # one at such a rate gets better to its end
    tree["train"] = train
    (tuned / "small.toml").write_text(tomli_w.dumps(tree))
    done = command(tuned, "tune", "eeg", "small.toml", "--set", "execution.processes=2")
    assert done.returncode == 0, done.stderr
    assert "each 2 processes of 1 CPU (Ray Train, ddp), since execution.processes = 2" in done.stdout
    rows = table(tuned)
    assert list(rows["status"]) == ["finished", "ended"]  # a group hears of it by polling, seconds late
    assert float(rows["share"][1]) < 1
    assert float(rows["loss"][1]) > float(rows["loss"][0])
    assert float(rows["train.learning_rate"][0]) == 3e-3  # the recipe as it stands
    alone = judge(small(tuned, *(f"train.{key}={value}" for key, value in train.items())), "x", "test", lambda *_: True)
    assert float(rows["loss"][0]) == pytest.approx(alone["validation_loss"].min(), abs=1e-3)


@pytest.mark.slow
def test_of_a_fusion_only_the_fused_network_is_judged(meg_study: Path, tmp_path: Path) -> None:
    recipe = small_pairs(meg_study, f"paths.runs={tmp_path}")
    convert_pairs(recipe, quiet)
    curve = judge(recipe, "x", "test", lambda *_: True)
    assert set(curve["model"]) == {"fused"}
    assert [path.stem for path in tmp_path.glob("x-*/checkpoints/*.tsv")] == ["fold0_fused_member0"]


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Ray cluster of two nodes on this machine, a processor each, behind a token; its address and its second node."""
    for name, value in {"MODE": "token", "TOKEN": secrets.token_hex(16)}.items():
        monkeypatch.setenv(f"RAY_AUTH_{name}", value)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, nodes = f"127.0.0.1:{port}", []
    ray = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--block",
        "--num-cpus=1",
        "--node-ip-address=127.0.0.1",
    ]
    ray += ["--object-store-memory=100000000", "--include-dashboard=false"]
    for k, where in enumerate((["--head", f"--port={port}"], [f"--address={address}"])):
        ports = [f"--min-worker-port={20000 + 500 * k}", f"--max-worker-port={20499 + 500 * k}"]
        arguments = [name for name in ray if not (k and "dashboard" in name)]
        with (tmp_path / f"node{k}.txt").open("w") as log:
            nodes.append(subprocess.Popen([*arguments, *where, *ports], stdout=log, stderr=log, start_new_session=True))
        deadline = time.monotonic() + 60
        while "This command will now block" not in (tmp_path / f"node{k}.txt").read_text():
            assert nodes[-1].poll() is None, (tmp_path / f"node{k}.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
    yield address, nodes[1]
    for node in nodes:
        end(node)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a node: everything that it started is in its session."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_node_is_lost_and_all_trials_end(tuned: Path, two_nodes: tuple[str, subprocess.Popen[bytes]]) -> None:
    address, second = two_nodes
    process = started(tuned, "--address", address, "--trials", "8", "--set", "tune.stopping=false")
    lines = heard(process, 4)
    assert f"8 trials, 2 at a time, on the cluster at {address} (2 nodes, 2 CPUs, no GPU)" in lines[0]
    end(second)
    rest, _ = process.communicate(timeout=200)
    assert process.returncode == 0, rest
    rows = table(tuned)
    assert list(rows["status"]) == ["finished"] * 8
    assert len(set(rows["node"])) == 2, "trials were not spread over both nodes"
    assert numbers([*lines, *rest.splitlines()]) == set(range(1, 9))

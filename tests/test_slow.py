"""Real processes, killed for good; real EEG. Minutes, so not in the quick tier."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import SMALL, SMALL_MEG
from synapse_diffusion.store.files import open_store

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-c", "from synapse_diffusion.cli import main; main()"]


def run(cwd: Path, *arguments: str) -> str:
    done = subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def recipe(folder: Path) -> Path:
    import tomli_w

    path = folder / "small.toml"
    paths = {"bids": "bids", "stores": "stores", "runs": "runs"}
    tree = {**SMALL, "paths": paths, "train": {"steps": 400, "checks": 40, "patience": 40}}
    path.write_text(tomli_w.dumps(tree))
    return path


def kill_when(cwd: Path, found: str, *arguments: str) -> None:
    """Start a command and `kill -9` it as soon as a file of that pattern is there."""
    process = subprocess.Popen([*COMMAND, *arguments], cwd=cwd, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(cwd.rglob(found)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def scores(cwd: Path) -> Any:
    return json.loads(next(cwd.glob("runs/*/scores.json")).read_text())


def test_killed_convert_and_train_end_with_the_same_numbers(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        recipe(folder)
    run(whole, "simulate", "small.toml")
    run(whole, "run", "small.toml")

    run(killed, "simulate", "small.toml")
    kill_when(killed, ".run-rsvp-01.unfinished", "convert", "eeg", "small.toml")
    run(killed, "convert", "eeg", "small.toml")
    for store in sorted(whole.glob("stores/*/*/*/*/*")):
        assert store.read_bytes() == (killed / store.relative_to(whole)).read_bytes(), store
    assert not list(killed.rglob(".*unfinished"))
    kill_when(killed, "*_unfinished.safetensors", "train", "eeg", "small.toml")
    kill_when(killed, "fold0_refit_member0_unfinished.safetensors", "train", "eeg", "small.toml")
    run(killed, "train", "eeg", "small.toml")
    run(killed, "evaluate", str(next(killed.glob("runs/*"))))
    assert scores(whole) == scores(killed)


def saved(folder: Path) -> dict[Path, int]:
    """Unfinished checkpoints and when they were written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*_unfinished.safetensors") if path.exists()}


def test_asked_to_end_it_saves_and_goes_on(tmp_path: Path) -> None:
    """SIGUSR1 saves, SIGTERM saves and ends with 143; the same command ends with the same bytes, in a group too."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    seldom = ["--set", "execution.checkpoint_minutes=60.0"]
    for folder in (whole, parts):
        folder.mkdir()
        recipe(folder)
    run(whole, "simulate", "small.toml")
    run(whole, "run", "small.toml")
    (parts / "bids").symlink_to(whole / "bids")
    (parts / "stores").symlink_to(whole / "stores")
    for processes in ("1", "2"):
        for path in parts.rglob("scaler.safetensors"):  # written anew: the sign that signals are listened to
            path.unlink()
        arguments = ["train", "eeg", "small.toml", *seldom, "--set", f"execution.processes={processes}"]
        process = subprocess.Popen([*COMMAND, *arguments], cwd=parts, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while not list(parts.rglob("scaler.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.002)
        before = saved(parts)
        while saved(parts) == before and process.poll() is None:
            process.send_signal(signal.SIGUSR1)
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 143, said
        assert "the same command goes on from there" in said
    run(parts, "train", "eeg", "small.toml")
    run(parts, "evaluate", str(next(parts.glob("runs/*"))))
    same = [row["value"] for row in scores(whole)["rows"]]
    assert [row["value"] for row in scores(parts)["rows"]] == pytest.approx(same, abs=2e-3)


def test_torchrun_trains_the_same(tmp_path: Path) -> None:
    recipe(tmp_path)
    run(tmp_path, "simulate", "small.toml")
    run(tmp_path, "convert", "eeg", "small.toml")
    run(tmp_path, "train", "eeg", "small.toml")
    few = ["train", "eeg", "small.toml", "--set", "paths.runs=two", "--set", "execution.sharding=fsdp"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "synapse_diffusion", *few], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: synapse-diffusion evaluate") == 1  # one speaks for both
    one, two = (
        pd.read_csv(next(tmp_path.glob(f"{runs}/*/predictions/validation.tsv")), sep="\t") for runs in ("runs", "two")
    )
    assert np.allclose(one["p(fruit)"], two["p(fruit)"], atol=1e-3)


def test_real_eeg_faces_and_houses(real: Path, tmp_path: Path) -> None:
    bids = f"paths.bids={real / 'bids/muse-n170'}"
    run(tmp_path, "run", "faces_houses", "--set", bids)
    rows = scores(tmp_path)["rows"]
    found = {
        (row["person"], row["model"], row["metric"]): row
        for row in rows
        if row["split"] == "test" and row["k_repeats"] == 1 and row["control"] == "none"
    }
    for person in ("01", "03"):
        ours, linear = found[person, "compact", "auc"], found[person, "linear", "auc"]
        assert ours["value"] > linear["value"] - 0.01
        assert ours["p_holm"] < 0.01
        assert found[person, "compact - linear", "right_more_often"]["low"] > -0.02  # not inferior by two points
    before = [r for r in rows if (r["metric"], r["control"]) == ("auc", "prestimulus")]
    assert min(row["p"] for row in before) > 0.05  # one of its recordings is there twice
    (tmp_path / "shuffled").mkdir()
    control = ["--set", "labels.shuffled=true", "--set", "train.members=1"]
    run(tmp_path / "shuffled", "run", "faces_houses", "--set", bids, *control)
    rows = scores(tmp_path / "shuffled")["rows"]
    p = [row["p_holm"] for row in rows if row["p_holm"] is not None]
    assert len(p) == 3 * 2 * 4  # everyone and two people, models, metrics
    assert min(p) > 0.01


def meg_recipe(folder: Path) -> None:
    import tomli_w

    paths = {"bids": "bids", "stores": "stores", "runs": "runs"}
    simulated = {**SMALL_MEG["simulate"], "channels": 120, "sessions": 4, "runs": 2, "sfreq": 600.0}
    tree = {**SMALL_MEG, "paths": paths, "simulate": simulated, "convert": {"lowpass_hz": 40.0, "sfreq": 200.0}}
    (folder / "meg.toml").write_text(tomli_w.dumps(tree))


def tree_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole_meg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of eight MEG runs, converted in one go."""
    folder = tmp_path_factory.mktemp("whole")
    meg_recipe(folder)
    run(folder, "simulate", "meg.toml")
    run(folder, "convert", "meg", "meg.toml")
    return folder


def new_target(whole_meg: Path, folder: Path) -> Path:
    """A folder for another conversion of the same recordings."""
    meg_recipe(folder)
    (folder / "bids").symlink_to(whole_meg / "bids")
    return folder


def test_four_shares_one_killed_and_started_again(whole_meg: Path, tmp_path: Path) -> None:
    cwd = new_target(whole_meg, tmp_path)
    shares = [
        subprocess.Popen([*COMMAND, "convert", "meg", "meg.toml", "--shard", f"{k}/4"], cwd=cwd, start_new_session=True)
        for k in range(1, 5)
    ]
    deadline = time.monotonic() + 120
    while not list(cwd.rglob(".*unfinished")) and time.monotonic() < deadline:
        time.sleep(0.002)
    victim = next(k for k, share in enumerate(shares, 1) if drafts(cwd, k))
    os.killpg(shares[victim - 1].pid, signal.SIGKILL)
    assert [share.wait() for share in shares][victim - 1] == -signal.SIGKILL
    assert tree_of(cwd / "stores") != tree_of(whole_meg / "stores")
    run(cwd, "convert", "meg", "meg.toml", "--shard", f"{victim}/4")
    assert tree_of(cwd / "stores") == tree_of(whole_meg / "stores")


def drafts(cwd: Path, share: int) -> bool:
    """Is this share (every fourth recording) writing?"""
    names = [f"ses-{1 + k // 2:02d}/.run-main-{1 + k % 2:02d}.unfinished" for k in range(share - 1, 8, 4)]
    return any(list(cwd.rglob(name)) for name in names)


def test_two_processes_with_the_same_recordings(whole_meg: Path, tmp_path: Path) -> None:
    cwd = new_target(whole_meg, tmp_path)
    both = [subprocess.Popen([*COMMAND, "convert", "meg", "meg.toml"], cwd=cwd, text=True, stdout=-1) for _ in range(2)]
    said = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert "another process is writing it: left to that one" in said
    assert tree_of(cwd / "stores") == tree_of(whole_meg / "stores")


def test_killed_at_twenty_moments(whole_meg: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    cwd = new_target(whole_meg, tmp_path)
    killed = 0
    while killed < 20:
        process = subprocess.Popen([*COMMAND, "convert", "meg", "meg.toml"], cwd=cwd, start_new_session=True)
        while not list(cwd.rglob(".*unfinished")) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.6))
        if process.poll() is not None:  # it got through: begin anew
            shutil.rmtree(cwd / "stores")
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        killed += 1
        for manifest in cwd.rglob("run-*/manifest.json"):  # what is there is whole
            open_store(manifest.parent)
    run(cwd, "convert", "meg", "meg.toml")
    assert tree_of(cwd / "stores") == tree_of(whole_meg / "stores")

"""Real processes, killed for good; the demo; real EEG. Minutes, so not in the quick tier."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import SMALL

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


def test_demo(tmp_path: Path) -> None:
    out = run(tmp_path, "demo")
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 1.5e9
    rows = json.loads(next(tmp_path.glob("demo/runs/*/scores.json")).read_text())["rows"]
    averaged = {
        row["model"]: row
        for row in rows
        if row["split"] == "test" and row["k_repeats"] > 1 and row["metric"] == "balanced_accuracy"
        if row["person"] == "all"
    }
    assert averaged["compact"]["value"] >= averaged["linear"]["value"] - 1e-9
    assert averaged["compact"]["p"] < 0.01
    assert averaged["observer"]["value"] >= averaged["compact"]["value"]
    assert "of the category observer's distance from chance" in out


def test_real_eeg_faces_and_houses(real: Path, tmp_path: Path) -> None:
    bids = f"paths.bids={real / 'bids/muse-n170'}"
    run(tmp_path, "run", "faces_houses", "--set", bids)
    rows = scores(tmp_path)["rows"]
    found = {
        (row["person"], row["model"], row["metric"]): row
        for row in rows
        if row["split"] == "test" and row["k_repeats"] == 1
    }
    for person in ("01", "03"):
        ours, linear = found[person, "compact", "auc"], found[person, "linear", "auc"]
        assert ours["value"] > linear["value"] - 0.01
        assert ours["p"] < 0.01
    (tmp_path / "shuffled").mkdir()
    control = ["--set", "labels.shuffled=true", "--set", "train.members=1"]
    run(tmp_path / "shuffled", "run", "faces_houses", "--set", bids, *control)
    p = [r["p"] for r in scores(tmp_path / "shuffled")["rows"] if r["split"] == "test" and r["metric"] == "auc"]
    assert min(p) * len(p) > 0.01  # Bonferroni

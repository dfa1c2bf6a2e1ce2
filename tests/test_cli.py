"""The command line: one line and an exit code for what a user did wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from synapse_diffusion.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "eeg", "nothing.toml"], "nothing.toml: no such recipe"),
        (["convert", "eeg", "demo", "--set", "convert.sfrq=3"], "nearest is convert.sfreq"),
        (["convert", "eeg", "demo"], "demo/bids: no such folder; set paths.bids"),
        (["train", "eeg", "demo"], "no signal store; run `synapse-diffusion convert`"),
        (["export", "nowhere", "out", "--format", "npy"], "nowhere: no such folder; give a signal store"),
        (["embed", "demo"], "demo/bids/stimuli: no such folder; set paths.images"),
        (["embed", "demo", "--set", "embed.encoder=darknet"], "encoder = 'darknet' needs weights"),
        (["info", "nowhere"], "nowhere: no such folder; give a BIDS data set"),
        (["evaluate", "elsewhere"], "elsewhere: not a run"),
        (["evaluate", "elsewhere", "--out", "x"], "--out is for the table over several seeds"),
        (["download", "things", "out", "--from", "nowhere"], "--from nowhere: no such folder"),
        (["download", "things", "out", "--subject", "2"], "takes a folder and --from only"),
        (["download", "eeg1", "out", "--from", "nowhere"], "name a copy of ds003825 1.2.0"),
        (["run", "demo", "--set", "nonsense"], "--set nonsense: give it as branch.key=value"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_help_is_instant(tmp_path: Path) -> None:
    probe = (
        "import sys; import synapse_diffusion.cli; print([m for m in ('torch', 'mne', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "evaluate" in run("--help", cwd=tmp_path).stdout

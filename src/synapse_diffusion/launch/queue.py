"""The only door to Slurm's commands, and the record of what was submitted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synapse_diffusion.config import Recipe
from synapse_diffusion.errors import MissingError, RunError
from synapse_diffusion.store.files import write_json

PATIENCE_S: Final = 60  # for an answer of Slurm's
VERSION: Final = 1
WAITING: Final = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")
LIVING: Final = (*WAITING, "RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED")


@dataclass(frozen=True)
class State:
    """What Slurm says of one job, or of one task of an array."""

    name: str
    reason: str = ""
    elapsed: str = ""


def ask(command: Sequence[str]) -> str:
    """Output of one of Slurm's commands. Raises `MissingError` with what it says where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except FileNotFoundError:
        raise MissingError(
            f"{command[0]}: not found; this needs a machine with Slurm (elsewhere: synapse-diffusion run RECIPE)"
        ) from None
    except subprocess.TimeoutExpired:
        raise MissingError(f"{command[0]}: Slurm did not answer within {PATIENCE_S} s; try again later") from None
    if done.returncode:
        said = [line.removeprefix(f"{command[0]}: ").removeprefix("error: ") for line in done.stderr.splitlines()]
        raise MissingError(f"{command[0]}: {'; '.join(said) or f'ended with code {done.returncode}'}")
    return done.stdout


def states(ids: Sequence[str]) -> dict[str, list[State]]:
    """States of these jobs, one of each task of an array: from the queue, else from the accounts, else none."""
    found: dict[str, list[State]] = {one: [] for one in ids}
    for line in ask(["squeue", "--me", "--noheader", "--states=all", "--array", "--format=%F|%T|%r|%M"]).splitlines():
        one, name, reason, elapsed = line.split("|")
        if one in found:
            found[one].append(State(name, "" if reason == "None" else reason, elapsed))
    if forgotten := [one for one in ids if not found[one]]:
        for line in _accounts(forgotten):
            one, name, elapsed = line.split("|")
            found[one.partition("_")[0]].append(State(name.split()[0], elapsed=elapsed))
    return found


def _accounts(ids: Sequence[str]) -> list[str]:
    command = ["sacct", "-X", "--noheader", "--parsable2", f"--jobs={','.join(ids)}", "--format=JobID,State,Elapsed"]
    try:
        return ask(command).splitlines()
    except MissingError:  # a site without accounting
        return []


def record_path(recipe: Recipe, name: str) -> Path:
    """Where it is kept which jobs were submitted for a recipe with these settings; their logs lie beside it."""
    return Path(recipe.paths.runs) / "slurm" / f"{name}-{recipe.digest()[:8]}.json"


def read_record(path: Path) -> dict[str, str]:
    """Job by stage; none where none was submitted. Raises `RunError` where the file is damaged."""
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != VERSION:
            raise ValueError
        return {str(stage): str(job) for stage, job in values["jobs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RunError(f"{path}: damaged, or of another version; delete it and submit again") from None


def write_record(path: Path, jobs: Mapping[str, str]) -> None:
    """Keep them: complete or not there."""
    write_json({"version": VERSION, "jobs": dict(jobs)}, path)

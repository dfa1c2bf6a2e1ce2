"""Submit a recipe's jobs as one chain."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Final

from synapse_diffusion.config import load_recipe
from synapse_diffusion.errors import MissingError, RunError, SettingsError
from synapse_diffusion.launch.chain import Job, chain, sbatch_line
from synapse_diffusion.launch.cluster import ALL, Cluster
from synapse_diffusion.launch.queue import LIVING, ask, read_record, record_path, states, write_record
from synapse_diffusion.types import Say

SHARED: Final = ("convert", "embed")
"""Stages whose results several recipes use."""


def submit(stage: str, source: str, overrides: list[str], cluster: Cluster, say: Say, *, dry_run: bool = False) -> None:
    """Submit one stage, or all of them, each after those that it needs; `dry_run` only says the commands.

    All or nothing: where Slurm refuses one, those before it are taken back. Raises `MissingError` with Slurm's own
    reason, `SettingsError` for a stage that the recipe does not have, `RunError` while such a job is in the queue.
    """
    recipe, name = load_recipe(source, overrides), Path(source).stem
    jobs = _wanted(chain(recipe, source, overrides), stage, source)
    path = record_path(recipe, name)
    try:
        record, mine, others = _in_queue(path)
    except MissingError:
        if not dry_run:
            raise
        record, mine, others = {}, {}, []
    for job in jobs:
        if one := mine.get(job.stage):  # two jobs that write one run would disturb each other
            raise RunError(f"{job.stage}: job {one} is in the queue already ({path}); wait for it, or scancel {one}")
    if dry_run:
        _say_lines(jobs, name, cluster, path.parent, mine, others, say)
        return
    new = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingError(f"{path.parent}: cannot be written: {error.strerror}; set paths.runs elsewhere") from None
    ids: dict[str, str] = {}
    try:
        for job in jobs:
            first = others if not ids else ()
            line = sbatch_line(job, name, cluster, path.parent, mine | ids, first)
            ids[job.stage] = ask(line).strip().partition(";")[0]
    except MissingError as error:
        if ids:
            with suppress(MissingError):
                ask(["scancel", *ids.values()])
        for folder in new:  # of logs; a job that had begun may have one
            with suppress(OSError):
                folder.rmdir()
        raise MissingError(f"{job.stage}: {error}{_partitions(str(error))}; nothing was submitted") from None
    write_record(path, {**record, **ids})
    for job in jobs:
        after = ", ".join(job.after(mine | ids))
        say(f"{job.stage}: job {ids[job.stage]}" + (f", after {after}" if after else ""))
    again = shlex.join([source, *(part for override in overrides for part in ("--set", override))])
    say(f"logs: {path.parent}; next: synapse-diffusion status {again}")


def _say_lines(
    jobs: list[Job], name: str, cluster: Cluster, logs: Path, mine: dict[str, str], others: list[str], say: Say
) -> None:
    """As a shell script that does the same."""
    say(f"mkdir -p {shlex.quote(str(logs))}")
    new: dict[str, str] = {}
    for job in jobs:
        line = shlex.join(sbatch_line(job, name, cluster, logs, mine | new, () if new else others))
        for stage in new:
            line = line.replace(f"@{stage}@", f"${stage}")  # unquoted
        say(f"{job.stage}=$({line})")
        new[job.stage] = f"@{job.stage}@"


def _in_queue(path: Path) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """What was submitted before: all of it, what of it has not ended, and other recipes' work on stores and vectors.

    Those they may share with this recipe, and a conversion leaves to another what that is writing.
    """
    records = {other: read_record(other) for other in path.parent.glob("*.json")}
    every = [one for record in records.values() for one in record.values()]
    known = states(every) if every else {}
    living = {one for one in every if any(state.name in LIVING for state in known[one])}
    record = records.pop(path, {})
    shared = [record[stage] for record in records.values() for stage in SHARED if stage in record]
    mine = {stage: one for stage, one in record.items() if one in living}
    return record, mine, [one for one in shared if one in living]


def _wanted(jobs: list[Job], stage: str, source: str) -> list[Job]:
    found = [job for job in jobs if stage in (ALL, job.stage)]
    if not found:
        raise SettingsError(f"{source}: has no stage {stage!r}; it has {', '.join(job.stage for job in jobs)}")
    return found


def _partitions(said: str) -> str:
    """Which partitions there are, where the wrong one was named."""
    if "partition" not in said.lower():
        return ""
    with suppress(MissingError):
        return f" (there are: {', '.join(sorted(set(ask(['sinfo', '--noheader', '--format=%R']).split())))})"
    return ""

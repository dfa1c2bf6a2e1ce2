"""How far a recipe's jobs and runs are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open

from synapse_diffusion.config import Recipe, load_recipe
from synapse_diffusion.errors import SynapseError
from synapse_diffusion.launch.queue import State, read_record, record_path, states
from synapse_diffusion.runs import Run
from synapse_diffusion.types import Say


def status(source: str, overrides: list[str], say: Say) -> None:
    """Say the state of each submitted job, and where the recipe's runs are. Raises `RunError`, `MissingError`."""
    recipe, name = load_recipe(source, overrides), Path(source).stem
    path = record_path(recipe, name)
    record = read_record(path)
    known: Mapping[str, list[State]] = states(list(record.values())) if record else {}
    for stage, one in record.items():
        say(f"{stage} (job {one}): {job_line(known[one])}")
        if any(state.name in ("FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT") for state in known[one]):
            task = "_*" if len(known[one]) > 1 else ""
            say(f"  why: {path.parent}/{name}-{stage}-{one}{task}.out")
    if not record:
        say(f"nothing was submitted with these settings (no {path})")
    for line in progress(recipe, name):
        say(line)


def job_line(tasks: list[State]) -> str:
    """One job's state in words; of an array how many tasks are in each state."""
    if not tasks:
        return "ended; Slurm no longer knows it"
    counts = Counter(state.name for state in tasks)
    words = [f"{n} {state}" if len(tasks) > 1 else state for state, n in counts.items()]
    reasons = {state.reason for state in tasks if state.name == "PENDING" and state.reason}
    if any("NotAvail" in reason or "DOWN" in reason for reason in reasons):
        words.append(f"no node that it could use is up ({', '.join(reasons)}): wait, or take another partition")
    elif reasons:
        words.append(f"waits for {', '.join(reasons)}")
    running = [state.elapsed for state in tasks if state.name == "RUNNING"]
    return ", ".join([*words, *([f"for {max(running)}"] if running else [])])


def progress(recipe: Recipe, name: str) -> Iterator[str]:
    """One line a run of this recipe, and a generator's."""
    runs, digits = Path(recipe.paths.runs), "[0-9a-f]" * 8
    for folder, its in _recipes(runs.glob(f"{name}-{digits}")):
        if its.digest() == recipe.digest():
            yield f"{folder}: {_how_far(folder, recipe.train.steps)}"
    for folder, its in _recipes(runs.glob(f"{recipe.data.name}-generator-{digits}")):
        if its.generator == recipe.generator:
            yield f"{folder}: {_how_far(folder, recipe.generator.steps)}"


def _recipes(folders: Iterable[Path]) -> Iterator[tuple[Path, Recipe]]:
    for folder in sorted(folders):
        with suppress(SynapseError):  # no run, or one that is being made
            yield folder, load_recipe(folder / "recipe.toml")


def _how_far(folder: Path, steps: int) -> str:
    if (folder / "curve.tsv").exists():
        return "trained" + ", scored" * (folder / "scores.json").exists()
    words = []
    if finished := len(list((folder / "checkpoints").glob("*.tsv"))):
        words.append(f"{finished} fits finished")
    for path in sorted((folder / "checkpoints").glob("*_unfinished.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                state = json.loads(file.metadata()["state"])
        except (OSError, SafetensorError, KeyError, TypeError):  # finished just now
            continue
        steps = steps or int(Run(folder).read_provenance()["steps"])
        score = f", validation loss {state['curve'][-1]['validation_loss']:.3f}" if state["curve"] else ""
        words.append(f"{path.stem.removesuffix('_unfinished')}: step {state['step']} of {steps}{score}")
    return "; ".join(words) or "no checkpoint yet"

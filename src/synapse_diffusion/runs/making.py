"""Which run a recipe and its data make, why it is to be trained, and its folder."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from synapse_diffusion.config import Recipe, dump_recipe
from synapse_diffusion.config.tree import differences, digest_of
from synapse_diffusion.errors import MissingError, SynapseError
from synapse_diffusion.runs.files import FREE, trained_with
from synapse_diffusion.runs.run import Run
from synapse_diffusion.store.files import write_json

PACKAGES: Final = ("synapse-diffusion", "torch", "numpy", "scipy", "scikit-learn", "mne", "pandas")


def open_run(folder: Path) -> Run:
    """An existing run. Raises `RunError` if it is none."""
    run = Run(folder)
    _ = run.provenance
    return run


@dataclass(frozen=True)
class Given:
    """What a decoder is trained on: digests of the stores, by folder, and of what trials are decoded into."""

    stores: Mapping[str, str]
    targets: str


def run_of(recipe: Recipe, name: str, given: Given) -> Run:
    """The folder of this recipe on these data: equal settings and data lead to the same one.

    `name` begins its own; empty: that of the data set.
    """
    key = digest_of({"recipe": recipe.digest(), "stores": dict(given.stores), "targets": given.targets})
    return Run(Path(recipe.paths.runs) / f"{name or recipe.data.name}-{key[:8]}")


def untrained(run: Run, recipe: Recipe, given: Given) -> str:
    """Why the run is to be trained: what differs from the latest of its name that is trained; empty: it is trained."""
    if run.content:
        return ""
    if (run.folder / "provenance.json").exists():
        return "it was begun, or what it left is gone in part"
    others = sorted(
        run.folder.parent.glob(run.folder.name[:-8] + "[0-9a-f]" * 8), key=lambda path: path.stat().st_mtime
    )
    for other in map(Run, reversed(others)):
        try:
            before = other.provenance
            there, now = (tomllib.loads(dump_recipe(one)) for one in (other.recipe, recipe))
        except SynapseError:
            continue
        settings = [one for one in differences(there, now) if one[0].partition(".")[0] not in FREE]
        if settings:
            return ", ".join(f"{key} = {value} now, {was} in {other.folder.name}" for key, was, value in settings[:3])
        if before["stores"] != given.stores:
            return f"the stores changed since {other.folder.name}"
        return f"what trials are decoded into changed since {other.folder.name}"
    return "not trained yet"


def prepare_run(recipe: Recipe, name: str, given: Given, command: str, about: Mapping[str, Any], *, write: bool) -> Run:
    """The run's folder, with recipe and provenance (unless another process writes them)."""
    run = run_of(recipe, name, given)
    if not write:
        return run
    content = {"recipe_digest": recipe.digest(), "trained_with": trained_with(dump_recipe(recipe))}
    begin_run(run, recipe, command, {**content, "stores": dict(given.stores), "targets": given.targets, **about})
    return run


def begin_run(run: Run, recipe: Recipe, command: str, about: Mapping[str, Any]) -> None:
    """Make a run's folder, with recipe and provenance."""
    provenance = {
        "command": command,
        **about,
        "versions": {package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": sys.platform,
    }
    try:
        (run.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        run.keep_recipe(recipe)
        write_json(provenance, run.folder / "provenance.json")
    except OSError as error:
        raise MissingError(f"{run.folder}: cannot be written: {error.strerror}; set paths.runs elsewhere") from None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "n/a"

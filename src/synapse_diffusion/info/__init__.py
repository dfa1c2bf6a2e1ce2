"""What a BIDS folder, signal store, folder of stores, pairs index or run holds, for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from synapse_diffusion.config import Recipe, load_recipe, parse_recipe
from synapse_diffusion.errors import DataError, SettingsError
from synapse_diffusion.info.evoked import plot_evoked
from synapse_diffusion.info.others import PAIRS_FORMAT, info_of_bids, info_of_pairs, info_of_run
from synapse_diffusion.info.stores import info_of_stores
from synapse_diffusion.info.values import Info, Table, read_object
from synapse_diffusion.store.files import stores_below
from synapse_diffusion.types import Progress, Say

__all__ = ["Info", "Table", "info", "settings_for"]

DEFAULT_VIEW: Final = {"view": {"start_s": -0.1, "stop_s": 0.8}}


def settings_for(recipe: str | None, overrides: Sequence[str]) -> Recipe:
    """The recipe, or defaults with a window from -0.1 to 0.8 s. Raises `SettingsError`."""
    return load_recipe(recipe, overrides) if recipe else parse_recipe(DEFAULT_VIEW, overrides)


def info(path: Path, settings: Recipe, plot: Path | None, say: Say, progress: Progress) -> Info:
    """Recognise what `path` is and count what it holds; `plot`: draw the evoked response (of stores) into this PNG.

    `settings` give the window (view) of usable trials and of the plot, and the categories (labels) that are counted.
    Damage is a line of `health`, no error. Raises `DataError` where `path` is nothing known, `SettingsError` for a
    plot of what has no epochs.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; give a BIDS data set, signal stores, a pairs index or a run")
    stores = stores_below(path)
    if plot is not None:
        if not stores:
            raise SettingsError(f"--plot {plot}: {path} holds no signal store; give a store or a folder above some")
        if plot.suffix.lower() != ".png":
            raise SettingsError(f"--plot {plot}: pictures are PNG; name it {plot.with_suffix('.png')}")
    if stores:
        found = info_of_stores(path, stores, settings, progress)
        if plot is not None:
            plot_evoked(path, stores, settings.view, plot, progress)
            say(f"drawn: {plot}")
        return found
    if (path / "provenance.json").exists() and (path / "recipe.toml").exists():
        return info_of_run(path)
    if read_object(path / "manifest.json").get("format") == PAIRS_FORMAT:
        return info_of_pairs(path)
    if (path / "dataset_description.json").exists() or any(path.glob("sub-*")):
        return info_of_bids(path, progress)
    raise DataError(
        f"{path}: holds no signal store (run-*/signal.npy), run (provenance.json and recipe.toml), pairs index "
        "(pairs.tsv and manifest.json) or BIDS data set (dataset_description.json or sub-*)"
    )

"""Which recordings are converted here and now: several side by side, several processes' shares apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import pandas as pd

from synapse_diffusion.bids import Recording, find_eeg2, find_recordings, open_recording
from synapse_diffusion.config import Recipe
from synapse_diffusion.config.tree import differences
from synapse_diffusion.convert.epochs import convert_epochs
from synapse_diffusion.convert.recording import Converted, about, convert_recording, things_folder
from synapse_diffusion.errors import BusyError, DataError, MissingError, SettingsError, StoreError, SynapseError
from synapse_diffusion.processors import n_processors
from synapse_diffusion.store.files import open_store, read_manifest
from synapse_diffusion.types import Progress, Say, silent

FLOAT_BYTES: Final = 4  # of a number in a store
WORKER_BYTES: Final = 900e6  # peak of one converting process, measured by benchmarks/convert.py


def convert(
    recipe: Recipe, say: Say = silent, progress: Progress = silent, shard: tuple[int, int] = (1, 1)
) -> list[Converted]:
    """Convert every chosen recording that is not converted yet; several side by side.

    `shard` (k, n): only every n-th recording, beginning with the k-th; n processes with k = 1..n end in the same
    stores as one. A recording that another process is converting is left to that one. Raises `StoreError` where a
    store was made with other settings, and the first `SynapseError` of a recording after the others have finished:
    a bad recording costs only itself.
    """
    if not 1 <= shard[0] <= shard[1]:
        raise SettingsError(f"--shard {shard[0]}/{shard[1]}: give k/n with k from 1 to n, e.g. 3/16")
    everything, target = _chosen(recipe, say)
    recordings = everything[shard[0] - 1 :: shard[1]]
    done = [finished(recording, recipe, target) for recording in recordings]
    results = [result for result in done if result is not None]
    waiting = [recording for recording, result in zip(recordings, done, strict=True) if result is None]
    if shard[1] > 1:
        say(f"share {shard[0]} of {shard[1]}: {len(recordings)} of {len(everything)} recordings")
    if results:
        say(f"{len(results)} of {len(recordings)} recordings are converted already")
    failures: list[SynapseError] = []
    progress("converting", 0, len(waiting))
    workers = n_workers(recipe, len(waiting))
    if workers == 1:
        for k, recording in enumerate(waiting):
            _collect(partial(convert_one, recording, recipe, target), results, failures, say)
            progress("converting", k + 1, len(waiting))
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(convert_one, recording, recipe, target) for recording in waiting]
            for k, future in enumerate(as_completed(futures)):
                _collect(future.result, results, failures, say)
                progress("converting", k + 1, len(waiting))
    if failures:
        for failure in failures[1:]:
            say(str(failure))
        raise failures[0]
    _say_montages(results, say)
    people = len({result.recording.person for result in results})
    say(f"converted: {len(results)} recordings, each to a signal store")
    say(f"{sum(result.n_trials for result in results)} trials of {people} people at {recipe.convert.sfreq:g} Hz")
    say(str(target))
    return sorted(results, key=lambda result: result.folder)


def unconverted(recipe: Recipe, say: Say) -> tuple[list[Recording], int]:
    """Recordings that have no store of their files, and how many there are in all. Raises as `convert`."""
    recordings, target = _chosen(recipe, say)
    return [one for one in recordings if finished(one, recipe, target) is None], len(recordings)


def store_bytes(recording: Recording, recipe: Recipe) -> int:
    """How large a recording's store will be, by its header; of epochs, as large as their file."""
    if recording.holds_epochs or recording.is_eeg2:
        return recording.path.stat().st_size
    settings = recipe.convert
    opened = open_recording(recording, drop_channels=settings.drop_channels, only_channels=settings.only_channels)
    return round(opened.n_samples * settings.sfreq / opened.sfreq) * len(opened.sensors.names) * FLOAT_BYTES


def _chosen(recipe: Recipe, say: Say) -> tuple[list[Recording], Path]:
    """All recordings that the recipe is about, and the folder of their stores."""
    root = Path(recipe.paths.bids)
    if recipe.data.format == "eeg2":
        recordings = find_eeg2(root, things_folder(recipe), recipe.data)
    else:
        recordings = find_recordings(root, recipe.data, say)
    _require_own_folders(recordings)
    return list(recordings), Path(recipe.paths.stores) / recipe.data.name


def convert_one(recording: Recording, recipe: Recipe, target: Path) -> Converted:
    """One recording or file of epochs, unless another process has finished it meanwhile."""
    if (result := finished(recording, recipe, target)) is not None:
        return result
    if recipe.convert.only_channels and (recording.holds_epochs or recording.is_eeg2):
        raise DataError(f"{recording.path}: convert.only_channels is for continuous BIDS recordings; leave it out")
    return (convert_epochs if recording.holds_epochs else convert_recording)(recording, recipe, target)


def finished(recording: Recording, recipe: Recipe, target: Path) -> Converted | None:
    """The result of an earlier run, if it came from the same files and settings.

    Raises `StoreError` where the store was made with other settings: hours of work are not overwritten unasked.
    """
    folder = target / recording.folder
    try:
        manifest = read_manifest(folder)
    except StoreError:
        return None  # not there, or damaged: converted (again)
    expected = about(recording, recipe)
    if manifest.get("settings_digest") != expected["settings_digest"]:
        changed = ", ".join(
            f"{key} = {there} there, {now} now"
            for key, there, now in differences(manifest.get("settings", {}), expected["settings"])
        )
        raise StoreError(
            f"{folder}: was converted with other settings ({changed}); remove it, or keep both by another data.name or "
            "paths.stores"
        )
    if any(manifest.get(key) != value for key, value in expected.items()):
        return None
    try:
        n_trials = len(open_store(folder, verify_signal=False).trials)
    except StoreError:
        return None
    return Converted(recording, folder, n_trials, tuple(manifest["notes"]), skipped=True)


def _require_own_folders(recordings: Sequence[Recording]) -> None:
    """Two files of one person, session, task and run (two formats, two acquisitions) would share a store."""
    seen: dict[str, Recording] = {}
    for recording in recordings:
        other = seen.setdefault(recording.folder, recording)
        if other is not recording:
            raise DataError(
                f"{other.path} and {recording.path} are one person, session, task and run; keep one of them "
                "in the data set, or name one folder by data.folder"
            )


def _collect(result: Any, results: list[Converted], failures: list[SynapseError], say: Say) -> None:
    try:
        converted: Converted = result()
    except BusyError as busy:
        say(f"{busy}: left to that one")
        return
    except BrokenProcessPool:
        raise MissingError(
            "a converting process was ended from outside, perhaps for want of memory; what is finished is kept: run "
            "again with --set execution.workers=1"
        ) from None
    except SynapseError as failure:
        failures.append(failure)
        return
    results.append(converted)
    for note in converted.notes:
        say(f"{_short(converted.recording)}: {note}")


def _short(recording: Recording) -> str:
    return f"sub-{recording.person} ses-{recording.session} {recording.run}"


def n_workers(recipe: Recipe, n_recordings: int) -> int:
    """How many recordings are converted side by side: what is asked for, or what processors and memory allow."""
    if recipe.execution.workers:
        return min(recipe.execution.workers, max(n_recordings, 1))
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4e9
    return max(1, min(n_recordings, n_processors(), int(available / WORKER_BYTES)))


def _say_montages(results: Sequence[Converted], say: Say) -> None:
    """One line for each recording whose channels are not those of the others."""
    names = {}
    for result in results:
        table = pd.read_csv(result.folder / "sensors.tsv", sep="\t", usecols=["name"], dtype=str)
        names[result] = frozenset(table["name"])
    sets = list(names.values())
    usual = max(sets, key=lambda channels: (sets.count(channels), -len(channels)), default=frozenset())
    for result, channels in names.items():
        if channels != usual:
            say(
                f"{_short(result.recording)}: {len(channels)} channels where others have "
                f"{len(usual)}: all are stored, training uses the {len(channels & usual)} that all have "
                f"(not in the others: {_some(channels - usual)}; missing: {_some(usual - channels)})"
            )


def _some(names: frozenset[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "") or "none"

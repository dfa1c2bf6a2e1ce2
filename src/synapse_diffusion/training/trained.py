"""A finished run, opened again on its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from synapse_diffusion.bids.montage import onto
from synapse_diffusion.config import Recipe
from synapse_diffusion.errors import DataError, RunError, StoreError
from synapse_diffusion.models.base import Shape
from synapse_diffusion.parallel import choose_device, use_threads
from synapse_diffusion.runs import NEEDED, Run, open_run
from synapse_diffusion.splits import FINAL_ONLY, TRAIN, UNUSED
from synapse_diffusion.store.epochs import Epochs, Montage, positions_of
from synapse_diffusion.store.files import SignalStore, open_store, read_manifest, stores_below
from synapse_diffusion.training.data import accepted
from synapse_diffusion.training.decoding import FoldModels, load_models
from synapse_diffusion.training.parts import Fold, final_rows
from synapse_diffusion.training.setting import Index, Setting
from synapse_diffusion.training.sources import Source, open_sources
from synapse_diffusion.training.tasks import make_task
from synapse_diffusion.types import Progress, Say

MOST_NAMED: Final = 6


@dataclass(frozen=True)
class Trained:
    """A run with its setting and folds."""

    run: Run
    setting: Setting
    folds: list[Fold]

    def stage(self, number: int, *, final: bool) -> str:
        """The name of a fold's fits: those that chose on validation, or the final ones."""
        return f"fold{number}_refit" if final and self.setting.recipe.train.refit else f"fold{number}"

    def rows(self, number: int, part: str) -> dict[str, Index]:
        """Rows of a part whose epochs are within the fold's limits."""
        return self._accepted(number, self.setting.rows(self.folds[number], part))

    def _accepted(self, number: int, rows: Mapping[str, Index]) -> dict[str, Index]:
        setting = self.setting
        return {
            name: accepted(
                setting.sources.of[name].epochs, r, setting.recipe.view,
                self.run.read_limits(setting.scaler_stage(f"fold{number}", name)),
            )
            for name, r in rows.items()
        }  # fmt: skip

    def trained_rows(self, number: int, *, final: bool) -> dict[str, Index]:
        """What a stage was trained on."""
        setting = self.setting
        if not (final and setting.recipe.train.refit):
            return self.rows(number, TRAIN)
        return self._accepted(
            number,
            {
                name: final_rows(
                    source, setting.task.of[name].stratum_N, self.folds[number][name], setting.recipe,
                    fused=setting.sources.is_fusion,
                )
                for name, source in setting.sources.of.items()
            },
        )  # fmt: skip

    def models(self, number: int, *, final: bool) -> FoldModels:
        """A fold's decoders."""
        targets = self.setting.targets(self.trained_rows(number, final=final), number)
        return load_models(self.setting, self.run, self.stage(number, final=final), targets)


def open_trained(folder: Path, progress: Progress) -> Trained:
    """Open a run. Raises `RunError` where it is unfinished, or the data are not those that it was trained on."""
    run = open_run(folder)
    if missing := [name for name in NEEDED if not (folder / name).exists()]:
        raise RunError(f"{folder}: not trained to the end (no {missing[0]}); run train with its recipe again")
    recipe, provenance = run.recipe, run.provenance
    run.check_recipe()
    _ = run.curve, run.splits  # damage is said before hours of work
    use_threads(recipe.execution.threads)
    sources = open_sources(recipe, choose_device(recipe.execution.device), progress)
    digests = sources.digests(Path(recipe.paths.stores))
    stored = provenance["stores"]
    if changed := [key for key in sorted({*digests, *stored}) if digests.get(key) != stored.get(key)]:
        raise RunError(f"{folder}: was trained on another content of the store {changed[0]}; train again")
    task = make_task(recipe, sources, provenance["targets"])
    if provenance["targets"] not in (task.digest, None):  # None: of classes, before these were noted
        what = "of its embedding table" if task.table is not None else "of its categories' tables"
        raise RunError(f"{folder}: was trained on another content {what}; train again")
    sources = sources.with_people(provenance["people"])
    shapes = {name: Shape(**values) for name, values in provenance["shape"].items()}
    setting = Setting(recipe, sources, task, shapes)
    return Trained(run, setting, _folds(setting, run))


def _folds(setting: Setting, run: Run) -> list[Fold]:
    """The folds as they were when the run was trained."""
    table = run.splits
    table = table[table["split"] != FINAL_ONLY]
    folds: list[Fold] = []
    for number in sorted(table["fold"].unique()):
        fold = {}
        for name, source in setting.sources.of.items():
            mine = table[(table["fold"] == number) & (table["modality"] == name)]
            part_of = dict(zip(mine["trial_id"], mine["split"], strict=True))
            fold[name] = np.array([part_of.get(trial, UNUSED) for trial in source.trials["trial_id"]], dtype="<U10")
        folds.append(fold)
    return folds


def other_source(trained: Trained, recording: Path, say: Say) -> tuple[str, Source]:
    """Modality and trials of stores that the run may not have seen, in its view.

    Electrodes that they lack are interpolated from those that they have. Raises `StoreError`.
    """
    folders = [recording] if (recording / "manifest.json").exists() else stores_below(recording)
    if not folders:
        raise StoreError(f"{recording}: no signal store; convert the recording with the run's recipe first")
    recipe, sources = trained.run.recipe, trained.setting.sources.of
    there = sorted({str(read_manifest(path)["modality"]) for path in folders})
    if len(there) > 1 or there[0] not in sources:
        raise StoreError(f"{recording}: {' and '.join(there)}; a recording of {' or '.join(sources)} alone is needed")
    known = sources[there[0]]
    settings = {read_manifest(store.folder)["settings_digest"] for store in known.epochs.stores}
    for path in folders:
        if read_manifest(path)["settings_digest"] not in settings:
            raise StoreError(f"{path}: was converted with other settings than the run's stores; convert it again")
    stores = [open_store(path, verify_signal=recipe.execution.verify_stores) for path in folders]
    if stores[0].sfreq != known.epochs.sfreq:
        raise StoreError(f"{recording}: {stores[0].sfreq:g} Hz, the run's decoder takes {known.epochs.sfreq:g} Hz")
    channels, montage = _montage(stores, known.epochs, recipe, say)
    view = recipe.view
    epochs = Epochs(stores, view.start_s, view.stop_s, view.baseline, channels, known.epochs.device, montage)
    return there[0], Source(epochs, known.person_of, np.full(len(epochs.trials), -1))


def _montage(
    stores: Sequence[SignalStore], known: Epochs, recipe: Recipe, say: Say
) -> tuple[tuple[str, ...], Montage | None]:
    """Channels to read, and how a run's are made of them where the recording lacks some. Raises `StoreError`."""
    shared = tuple(n for n in stores[0].sensors.names if all(n in store.sensors.names for store in stores))
    if not (lacking := [name for name in known.channels if name not in shared]):
        return known.channels, None
    names = f"{', '.join(lacking[:MOST_NAMED])}{' ...' * (len(lacking) > MOST_NAMED)}"
    what = f"{stores[0].folder}: lacks {len(lacking)} of the run's {len(known.channels)} sensors ({names})"
    if "eeg" not in stores[0].sensors.kinds:
        raise StoreError(f"{what}, and a MEG's are not made of others; train on view.channels that both have")
    have = dict(zip(shared, positions_of(stores, shared), strict=True))
    want = dict(zip(known.channels, known.position_C3, strict=True))
    # the run's average reference is over all of its electrodes, whichever of them it looks at
    others = known.stores[0].sensors
    beside = {n: place for n, place in zip(others.names, others.position_C3, strict=True) if np.isfinite(place).all()}
    try:
        weight_DC = onto(have, want | {name: place for name, place in beside.items() if name not in want})
    except DataError as error:
        raise StoreError(f"{what}; {error}; train on view.channels that both have") from None
    if recipe.convert.reference == ("average",):
        weight_DC -= weight_DC.mean(0)
    say(f"{what}; they are made of the {len(shared)} that it has, by spherical splines")
    return shared, Montage(known.channels, known.position_C3, weight_DC[: len(want)])

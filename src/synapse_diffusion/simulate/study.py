"""Pictures, people, recordings and truth, written as a BIDS data set in the form of ds003825 or of ds004212."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.bids.truth import PersonTruth, write_truth
from synapse_diffusion.config import Recipe, SimulateSettings
from synapse_diffusion.config.tree import digest_of
from synapse_diffusion.errors import DataError, MissingError, SettingsError
from synapse_diffusion.simulate import brain
from synapse_diffusion.simulate.generator import GENERATORS, Generator
from synapse_diffusion.simulate.modality import MODALITIES, Modality
from synapse_diffusion.simulate.noise import Levels, frequencies, make_noise, noise_moments
from synapse_diffusion.simulate.schedule import Recording
from synapse_diffusion.simulate.sensors import Sensors
from synapse_diffusion.simulate.stimuli import Stimuli, make_stimuli, standard
from synapse_diffusion.simulate.writing import write_dataset
from synapse_diffusion.types import Progress, Say, silent

RESPONSE_S: Final = 0.7  # a response has died out by then
MEG_ONLY: Final = ("sessions", "runs", "onset_jitter_s", "catch_share")


def unsimulated(recipe: Recipe) -> str:
    """Why the study is to be simulated; empty: it is there."""
    there = _digest_of_study(Path(recipe.paths.bids))
    if there is None:
        return f"no simulated study is in {recipe.paths.bids}"
    return "" if there == _digest(recipe) else f"{recipe.paths.bids} holds another study"


def _digest(recipe: Recipe) -> str:
    """Of all that a study depends on."""
    settings = recipe.simulate.model_dump(mode="json")
    return digest_of({**settings, "stimuli": recipe.paths.stimuli, "modality": recipe.data.modality})


def simulate(recipe: Recipe, say: Say = silent, progress: Progress = silent) -> Path:
    """Write the study of `data.modality` to `paths.bids`; does nothing if the same one is there. Returns the folder.

    Equal settings of pictures show the same pictures in both modalities, to other people.
    Raises `SettingsError` if the modality does not have what is asked for, `DataError` if something else is there,
    `MissingError` if the disk is full.
    """
    settings, root = recipe.simulate, Path(recipe.paths.bids)
    modality = _modality(recipe)
    digest = _digest(recipe)
    if root.exists():
        if _digest_of_study(root) == digest:
            say(f"{root}: this study is simulated already")
            return root
        raise DataError(f"{root}: holds another study or other files; remove it or set paths.bids to a new folder")
    draft = root.with_name(f".{root.name}.unfinished")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        generator = GENERATORS[settings.generator]
        stimuli = make_stimuli(draft, settings, recipe.paths.stimuli, generator, progress)
        rng = np.random.default_rng([settings.seed, 1])
        table = stimuli.table
        late = generator.late(list(table["category"]), list(table["concept"]), list(table["image_id"]), rng)
        mixing = rng.standard_normal((stimuli.middle_NF.shape[1], brain.N_SOURCES["middle"]))
        drives = [stimuli.early_NF, standard(stimuli.middle_NF @ mixing), late]
        people = [f"{modality.prefix}{k + 1:02d}" for k in range(settings.people)]
        for k, person in enumerate(people):
            progress("recording", k, settings.people)
            rng = np.random.default_rng([settings.seed, modality.stream, k + 1])
            _record(draft, person, stimuli, drives, modality, settings, rng)
        progress("recording", settings.people, settings.people)
        write_dataset(draft, recipe.data.modality, people, stimuli, settings.preset, digest)
        draft.rename(root)
    except OSError as error:
        raise MissingError(f"{root}: cannot be written: {error.strerror}; free some space or set paths.bids") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    say(f"simulated: {recipe.data.modality.upper()} of {settings.people} people")
    say(f"{len(table)} pictures of {table['concept'].nunique()} concepts, preset {settings.preset}")
    say(str(root))
    return root


def _modality(recipe: Recipe) -> Modality:
    settings, name = recipe.simulate, recipe.data.modality
    if name not in MODALITIES:
        raise SettingsError(f"data.modality = {name!r}: simulate writes one of {', '.join(MODALITIES)} at a time")
    modality = MODALITIES[name]
    faults = []
    if settings.channels > modality.most_channels:
        faults.append(f"simulate.channels = {settings.channels}: at most {modality.most_channels} of {name.upper()}")
    if name == "eeg":
        given = [(key, getattr(settings, key)) for key in MEG_ONLY]
        faults += [
            f"simulate.{key} = {value}: only MEG studies have it (data.modality)"
            for key, value in given
            if value != SimulateSettings.model_fields[key].default
        ]
    if faults:
        raise SettingsError("\n".join(faults))
    return modality


def _digest_of_study(root: Path) -> str | None:
    try:
        about = json.loads((root / "dataset_description.json").read_text())
        return str(about["GeneratedBy"][0]["Digest"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _record(
    root: Path,
    person: str,
    stimuli: Stimuli,
    drives: Sequence[NDArray[np.float64]],
    modality: Modality,
    settings: SimulateSettings,
    rng: np.random.Generator,
) -> None:
    """One person's recordings: pictures in order, signal, event tables, truth."""
    generator = GENERATORS[settings.generator]
    sensors = modality.place(settings.channels, rng)
    anatomy = brain.grow_anatomy(sensors, rng)
    gains = (anatomy.gain_early, anatomy.gain_middle, anatomy.gain_late)
    own = np.stack([drive_NS @ gain_CS.T for drive_NS, gain_CS in zip(drives, gains, strict=True)])
    # a response shared by all pictures: the evoked one that a reader of EEG or MEG expects to see
    shared = modality.shared(own, gains, rng)
    patterns = own + shared
    scale = np.array(modality.amplitude[settings.preset]) / np.sqrt(patterns.var(axis=1).mean(axis=1))
    gain = np.exp(0.15 * rng.standard_normal())  # skull and cap, or cortical strength: one factor a person
    patterns *= (gain * scale)[:, None, None]
    recordings = modality.show(stimuli.table["is_test"].to_numpy() == 1, settings, rng)
    n_trials = sum(len(recording.trials) for recording in recordings)
    delay_NS, gain_NS = generator.draw(n_trials, rng)
    latency_NS = anatomy.latency_S + (generator.latency_S - brain.LATENCY_S) + delay_NS
    levels = generator.noise(modality.levels)
    if generator.observed:
        truth = _truth(stimuli, sensors, patterns, anatomy, levels, settings)
        write_truth(root, person, truth, _drawn(recordings, delay_NS[:, 0] / brain.LATENCY_SD_S[0], gain_NS))
    if settings.catch_share:
        patterns = np.concatenate([patterns, _artificial(gains, shared, scale * gain, own, rng)], axis=1)
    start = 0
    for recording in recordings:
        signal_CT, body_PT = make_noise(anatomy, sensors, levels, recording.n_samples, settings, rng)
        mine = slice(start, start + len(recording.trials))
        _add_responses(signal_CT, recording.trials, patterns, latency_NS[mine], gain_NS[mine], generator, settings)
        modality.write(root, person, recording, signal_CT, body_PT, sensors, stimuli, settings)
        start = mine.stop


def _truth(
    stimuli: Stimuli,
    sensors: Sensors,
    patterns: NDArray[np.float64],
    anatomy: brain.Anatomy,
    levels: Levels,
    settings: SimulateSettings,
) -> PersonTruth:
    spatial, powers = noise_moments(anatomy, sensors, levels, settings.sfreq)
    return PersonTruth(
        images=tuple(stimuli.table["image_id"]),
        concepts=tuple(stimuli.table["concept"]),
        categories=tuple(stimuli.table["category"]),
        sensors=tuple(sensors.names),
        pattern_SNC=patterns,
        latency_S=anatomy.latency_S,
        width_S=brain.WIDTH_S,
        latency_sd_S=brain.LATENCY_SD_S,
        gain_sd_S=brain.GAIN_SD,
        noise_MCC=spatial,
        noise_power_MF=powers,
        frequency_F=frequencies(settings.sfreq),
        onset_distance_s=settings.onset_distance_s,
    )


def _artificial(
    gains: Sequence[NDArray[np.float64]],
    shared: NDArray[np.float64],
    scale_S: NDArray[np.float64],
    own: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """The response (S, 1, C) to the picture of catch trials: drawn, as strong as another picture's."""
    drawn = np.stack([gain_CS @ rng.standard_normal(gain_CS.shape[1]) for gain_CS in gains])[:, None]
    drawn *= np.sqrt((own**2).mean(axis=(1, 2)) / (drawn**2).mean(axis=(1, 2)))[:, None, None]
    return np.asarray(scale_S[:, None, None] * (drawn + shared))


def _drawn(recordings: Sequence[Recording], shift_N: NDArray[np.float64], gain_NS: NDArray[np.float64]) -> pd.DataFrame:
    """What was drawn for each trial, in the order of the event tables."""
    tables = [
        pd.DataFrame({"session": r.session, "run": r.run, "eventnumber": np.arange(len(r.trials))}) for r in recordings
    ]
    table = pd.concat(tables, ignore_index=True).assign(shift=shift_N)
    table[["gain_early", "gain_middle", "gain_late"]] = gain_NS
    return table if recordings[0].session else table.drop(columns=["session", "run"])


def _add_responses(
    signal_CT: NDArray[np.float32],
    trials: pd.DataFrame,
    patterns_SNC: NDArray[np.float64],
    latency_NS: NDArray[np.float64],
    gain_NS: NDArray[np.float64],
    generator: Generator,
    settings: SimulateSettings,
) -> None:
    """Add each trial's response, overlapping those of its neighbours."""
    times = np.arange(round(RESPONSE_S * settings.sfreq)) / settings.sfreq
    images = trials["image"].to_numpy()
    patterns = patterns_SNC.astype(np.float32)
    for k, sample in enumerate(trials["sample"]):
        kernel_ST = generator.course(times, latency_NS[k]) * gain_NS[k][:, None]
        signal_CT[:, sample : sample + len(times)] += patterns[:, images[k]].T @ kernel_ST.astype(np.float32)

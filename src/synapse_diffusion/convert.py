"""Raw BIDS EEG -> signal stores."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from synapse_diffusion.bids import OpenRecording, Recording, find_recordings, open_recording, read_trials
from synapse_diffusion.config import ConvertSettings, Recipe
from synapse_diffusion.config.tree import conversion_settings, digest_of
from synapse_diffusion.errors import DataError, StoreError, SynapseError
from synapse_diffusion.signal.faults import NAN_CHANNEL, ChannelStatistics, Scan, blocks_of, bridged, scan
from synapse_diffusion.signal.fir import FirPlan, filter_resample
from synapse_diffusion.store.files import draft_store, file_digest, open_store, read_manifest
from synapse_diffusion.types import Progress, Say, Segment, SensorArray

WORKER_BYTES: Final = 600e6  # peak of one converting process, measured by benchmarks/convert.py
MATRIX_BLOCK: Final = 65536  # samples a block when referencing in place
MIN_GOOD: Final = 0.2  # share of good channels below which a recording is refused
MAX_RATIO: Final = 1000  # up and down factors beyond this make filters of absurd length


@dataclass(frozen=True)
class Converted:
    """What became of one recording."""

    recording: Recording
    folder: Path
    n_trials: int
    notes: tuple[str, ...]
    skipped: bool = False


def convert_eeg(recipe: Recipe, say: Say, progress: Progress) -> list[Converted]:
    """Convert every chosen recording that is not converted yet; several side by side.

    Raises the first `SynapseError` after the others have finished: a bad recording costs only itself.
    """
    root = Path(recipe.paths.bids)
    recordings = find_recordings(root, recipe.data, say)
    target = Path(recipe.paths.stores) / recipe.data.name
    _require_own_folders(recordings)
    done = [_finished(recording, recipe, target) for recording in recordings]
    results = [result for result in done if result is not None]
    waiting = [recording for recording, result in zip(recordings, done, strict=True) if result is None]
    if results:
        say(f"{len(results)} of {len(recordings)} recordings are converted already")
    failures: list[SynapseError] = []
    progress("converting", 0, len(waiting))
    workers = _n_workers(recipe, len(waiting))
    if workers == 1:
        for k, recording in enumerate(waiting):
            _collect(lambda r=recording: convert_recording(r, recipe, target), results, failures, say)
            progress("converting", k + 1, len(waiting))
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(convert_recording, recording, recipe, target) for recording in waiting]
            for k, future in enumerate(as_completed(futures)):
                _collect(future.result, results, failures, say)
                progress("converting", k + 1, len(waiting))
    if failures:
        for failure in failures[1:]:
            say(str(failure))
        raise failures[0]
    _say_montages(results, say)
    return sorted(results, key=lambda result: result.folder)


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


def convert_recording(recording: Recording, recipe: Recipe, target: Path) -> Converted:
    """Convert one recording into its store. Raises `DataError`, `MissingError`; leaves nothing half-written."""
    settings = recipe.convert
    notes: list[str] = []
    opened = open_recording(recording, restore_reference=settings.restore_reference)
    trials, bad = read_trials(recording, recipe.data.events, opened.n_samples, opened.sfreq, notes.append)
    plan = fir_plan(settings, opened.sfreq, recording.path)
    found = scan(opened.read, opened.n_samples, max(2, round(settings.dropout_s * opened.sfreq)))
    segments = [*opened.segments, *bad, *(Segment(a, b, "dropout") for a, b in found.dropouts)]
    if found.dropouts:
        notes.append(f"{len(found.dropouts)} dropouts bridged, first at {found.dropouts[0][0] / opened.sfreq:.2f} s")
    pieces = _pieces(opened, segments)
    starts_out = np.cumsum([0, *(plan.n_out(stop - start) for start, stop in pieces)])
    folder = target / recording.folder
    with draft_store(folder) as draft:
        signal_TC = draft.signal(int(starts_out[-1]), len(opened.sensors.names))
        with threadpool_limits(1):  # small products: a second thread waits more than it works (7 s against 0.7 s)
            statistics = _filter_into(signal_TC, opened, found, plan, pieces)
            sensors = _judge(opened.sensors, found, statistics, settings, notes, recording.path)
            _rereference(signal_TC, sensors, settings, notes, recording.path)
        to_out = _SampleMap(pieces, starts_out, plan)
        trials = trials.assign(onset_sample=to_out(trials["onset_sample"].to_numpy()))
        draft.finish(
            settings.sfreq,
            sensors,
            trials,
            _segments_out(segments, to_out, int(starts_out[-1])),
            {**_about(recording, recipe), "notes": notes},
        )
    return Converted(recording, folder, len(trials), tuple(notes))


def fir_plan(settings: ConvertSettings, sfreq: float, path: Path) -> FirPlan:
    """MNE's own FIR design (firwin, Hamming, its transition bands), split for block-wise work."""
    ratio = Fraction(settings.sfreq / sfreq).limit_denominator(MAX_RATIO)
    if ratio > 1 or abs(float(ratio) * sfreq - settings.sfreq) > 1e-6 * settings.sfreq:
        raise DataError(
            f"{path}: recorded at {sfreq:g} Hz, which convert.sfreq = {settings.sfreq:g} Hz cannot be made from; "
            "choose a rate that is lower, in a ratio of whole numbers"
        )
    low, high = settings.highpass_hz or None, settings.lowpass_hz or None
    if high is not None and high >= sfreq / 2:
        high = None
    full = _design(sfreq, low, high) if low or high else np.ones(1)
    short = _design(sfreq, None, high) if high else np.ones(1)
    notch = np.ones(1)
    for hz in settings.notch_hz:
        half = hz / 400 + 0.5  # MNE's notch_filter: width hz / 200, transitions of 0.5 Hz on both sides
        notch = np.convolve(notch, _design(settings.sfreq, hz + half, hz - half, transition=0.5))
    return FirPlan(full, short, ratio.numerator, ratio.denominator, notch if settings.notch_hz else None)


def _design(
    sfreq: float, low: float | None, high: float | None, transition: float | str = "auto"
) -> NDArray[np.float64]:
    taps = mne.filter.create_filter(
        None, sfreq, low, high, l_trans_bandwidth=transition, h_trans_bandwidth=transition, verbose="error"
    )
    return np.asarray(taps, dtype=np.float64)


def _filter_into(
    signal_TC: NDArray[np.float32],
    opened: OpenRecording,
    found: Scan,
    plan: FirPlan,
    pieces: Sequence[tuple[int, int]],
) -> ChannelStatistics:
    """Filter piece after piece (no filter runs across a boundary), in V, gathering channel statistics."""
    statistics = ChannelStatistics(signal_TC.shape[1])
    read = bridged(opened.read, opened.n_samples, found)
    at = 0
    for start, stop in pieces:
        for block_TC in filter_resample(lambda a, b, s=start: read(a + s, b + s), stop - start, plan):  # type: ignore[misc]
            np.multiply(block_TC, opened.gain_C, out=signal_TC[at : at + len(block_TC)])
            statistics.add(signal_TC[at : at + len(block_TC)])
            at += len(block_TC)
    return statistics


def _judge(
    sensors: SensorArray,
    found: Scan,
    statistics: ChannelStatistics,
    settings: ConvertSettings,
    notes: list[str],
    path: Path,
) -> SensorArray:
    """Mark bad channels: those that the data set names, NaN ones, and (by setting) those that look it."""
    why = {k: "marked" for k, status in enumerate(sensors.status) if status == "bad"}
    why |= {int(k): "NaN" for k in np.flatnonzero(found.nan_share_C > NAN_CHANNEL)}
    if settings.find_bad_channels:
        looks = statistics.find_bad(settings.noisy_z, settings.min_correlation)
        why |= {k: reason for k, reason in looks.items() if k not in why and sensors.status[k] != "reference"}
    if why:
        listed = ", ".join(f"{sensors.names[k]} ({reason})" for k, reason in sorted(why.items()))
        notes.append(f"bad channels: {listed}; {settings.bad_channels}")
    n_good = len(sensors.names) - len(why)
    if n_good < max(1, MIN_GOOD * len(sensors.names)):
        raise DataError(
            f"{path}: {n_good} of {len(sensors.names)} channels are good: {notes[-1]}; see convert.*bad_channels"
        )
    status = tuple("bad" if k in why else state for k, state in enumerate(sensors.status))
    return replace(sensors, status=status)


def _rereference(
    signal_TC: NDArray[np.float32],
    sensors: SensorArray,
    settings: ConvertSettings,
    notes: list[str],
    path: Path,
) -> None:
    """Replace bad channels and take off the reference, as one matrix, in place."""
    n = len(sensors.names)
    bad = np.array([status == "bad" for status in sensors.status])
    matrix = np.eye(n)
    if bad.any() and settings.bad_channels != "keep":
        matrix = _interpolation(sensors, bad, settings, notes)
    if settings.reference == ("average",):
        weights = np.where(bad, 0.0, 1.0) / np.sum(~bad)
    elif settings.reference == ("none",):
        weights = np.zeros(n)
    else:
        if missing := [name for name in settings.reference if name not in sensors.names]:
            raise DataError(f"{path}: convert.reference names {', '.join(missing)}; it has {', '.join(sensors.names)}")
        weights = np.array([name in settings.reference for name in sensors.names]) / len(settings.reference)
    zeroed = bad & ~matrix.any(axis=1)
    matrix = matrix - np.where(zeroed[:, None], 0.0, weights @ matrix)
    if np.array_equal(matrix, np.eye(n)):
        return
    transform = np.ascontiguousarray(matrix.T, dtype=np.float32)
    for start, stop in blocks_of(len(signal_TC), MATRIX_BLOCK):
        signal_TC[start:stop] = signal_TC[start:stop] @ transform


def _interpolation(
    sensors: SensorArray, bad: NDArray[np.bool_], settings: ConvertSettings, notes: list[str]
) -> NDArray[np.float64]:
    """Spherical splines (Perrin 1989) by MNE, applied to unit vectors to get the matrix."""
    n = len(sensors.names)
    known: NDArray[np.bool_] = np.asarray(np.isfinite(sensors.position_C3).all(axis=1))
    if settings.bad_channels == "zero" or not known[bad].all() or (known & ~bad).sum() < 4:
        if settings.bad_channels == "interpolate":
            notes.append("bad channels set to zero: too few electrode positions are known to interpolate")
        return np.diag(np.where(bad, 0.0, 1.0))
    names = [name for name, there in zip(sensors.names, known, strict=True) if there]
    info = mne.create_info(names, 1000.0, "eeg", verbose="error")
    unit = mne.io.RawArray(np.eye(n)[known], info, verbose="error")
    positions = dict(zip(sensors.names, sensors.position_C3, strict=True))
    unit.set_montage(mne.channels.make_dig_montage({name: positions[name] for name in names}, coord_frame="head"))
    unit.info["bads"] = [name for name, is_bad in zip(sensors.names, bad, strict=True) if is_bad]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unit.interpolate_bads(reset_bads=False, origin="auto", verbose="error")
    matrix = np.eye(n)
    matrix[known] = unit.get_data()
    return matrix


def _pieces(opened: OpenRecording, segments: Sequence[Segment]) -> list[tuple[int, int]]:
    cuts = sorted({0, opened.n_samples, *(s.start for s in segments if s.kind == "boundary")})
    return list(pairwise(cuts))


class _SampleMap:
    """Input sample -> nearest output sample of its own piece."""

    def __init__(self, pieces: Sequence[tuple[int, int]], starts_out: NDArray[Any], plan: FirPlan) -> None:
        self._starts = np.array([start for start, _ in pieces])
        self._starts_out, self._plan = starts_out, plan

    def __call__(self, sample: NDArray[np.int64]) -> NDArray[np.int64]:
        piece = np.searchsorted(self._starts, sample, side="right") - 1
        scaled = (sample - self._starts[piece]) * self._plan.up
        out = self._starts_out[piece] + (scaled + self._plan.down // 2) // self._plan.down
        return np.asarray(np.minimum(out, self._starts_out[piece + 1] - 1), dtype=np.int64)


def _segments_out(segments: Sequence[Segment], to_out: _SampleMap, n_out: int) -> list[Segment]:
    out = []
    for segment in segments:
        start, last = (int(k) for k in to_out(np.array([segment.start, max(segment.stop - 1, segment.start)])))
        out.append(Segment(start, start if segment.kind == "boundary" else min(last + 1, n_out), segment.kind))
    return sorted(out, key=lambda segment: (segment.start, segment.stop, segment.kind))


def _about(recording: Recording, recipe: Recipe) -> dict[str, Any]:
    """What the store was made from: equal input and settings give an equal manifest."""
    data = [recording.path]
    if recording.path.suffix in (".vhdr", ".set"):
        data += sorted(p for p in recording.path.parent.glob(f"{recording.path.stem}.*") if p != recording.path)
    settings = conversion_settings(recipe)
    return {
        "settings": settings,
        "settings_digest": digest_of(settings),
        "sources": {path.name: path.stat().st_size for path in data if path.exists()},
        "sidecars": {path.name: file_digest(path) for path in recording.sidecars if path.exists()},
    }


def _finished(recording: Recording, recipe: Recipe, target: Path) -> Converted | None:
    """The result of an earlier run, if it came from the same files and settings."""
    folder = target / recording.folder
    try:
        manifest = read_manifest(folder)
    except StoreError:
        return None
    if any(manifest.get(key) != value for key, value in _about(recording, recipe).items()):
        return None
    try:
        n_trials = len(open_store(folder, verify_signal=False).trials)
    except StoreError:
        return None  # damaged: converted again
    return Converted(recording, folder, n_trials, tuple(manifest["notes"]), skipped=True)


def _collect(result: Any, results: list[Converted], failures: list[SynapseError], say: Say) -> None:
    try:
        converted: Converted = result()
    except SynapseError as failure:
        failures.append(failure)
        return
    results.append(converted)
    for note in converted.notes:
        say(f"sub-{converted.recording.person} {converted.recording.run}: {note}")


def _n_workers(recipe: Recipe, n_recordings: int) -> int:
    if recipe.execution.workers:
        return min(recipe.execution.workers, max(n_recordings, 1))
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4e9
    return max(1, min(n_recordings, os.cpu_count() or 1, int(available / WORKER_BYTES)))


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
                f"sub-{result.recording.person} {result.recording.run}: {len(channels)} channels where others have "
                f"{len(usual)}: all are stored, training uses the {len(channels & usual)} that all have "
                f"(not in the others: {_some(channels - usual)}; missing: {_some(usual - channels)})"
            )


def _some(names: frozenset[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "") or "none"

"""One continuous recording -> its signal store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import mne
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from synapse_diffusion.bids import (
    OpenRecording,
    Recording,
    TrialTable,
    open_eeg2,
    open_recording,
    read_codes,
    read_images,
    read_trials,
)
from synapse_diffusion.bids.recordings import read_json
from synapse_diffusion.config import ConvertSettings, Recipe
from synapse_diffusion.config.recordings import NOTCH_BAND_HZ
from synapse_diffusion.config.tree import conversion_settings, digest_of
from synapse_diffusion.convert.channels import apply_matrix, judge, listed, repair_matrix, with_status
from synapse_diffusion.convert.ica import ica_matrix
from synapse_diffusion.errors import DataError
from synapse_diffusion.signal.faults import ChannelStatistics, Scan, bridged, scan
from synapse_diffusion.signal.fir import FirPlan, ReadBlock, filter_resample
from synapse_diffusion.signal.timing import check_trigger
from synapse_diffusion.store.files import draft_store, file_digest
from synapse_diffusion.types import Segment

MAX_RATIO: Final = 1000  # up and down factors beyond this make filters of absurd length


@dataclass(frozen=True)
class Converted:
    """What became of one recording."""

    recording: Recording
    folder: Path
    n_trials: int
    notes: tuple[str, ...]
    skipped: bool = False


def convert_recording(recording: Recording, recipe: Recipe, target: Path) -> Converted:
    """Convert one recording into its store. Raises `DataError`, `MissingError`; leaves nothing half-written."""
    settings = recipe.convert
    notes: list[str] = []
    opened, table = _open(recording, recipe, notes)
    notes += table.notes
    if settings.trigger_channel:
        notes.append(
            _trigger_note(opened, settings.trigger_channel, table.trials["onset_sample"].to_numpy(), recording.path)
        )
    plan = fir_plan(settings, opened.sfreq, recording.path)
    found = scan(opened.read_recorded, opened.n_samples, max(2, round(settings.dropout_s * opened.sfreq)))
    segments = [*opened.segments, *table.bad, *(Segment(a, b, "dropout") for a, b in found.dropouts)]
    if found.dropouts:
        notes.append(f"{len(found.dropouts)} dropouts bridged, first at {found.dropouts[0][0] / opened.sfreq:.2f} s")
    pieces = _pieces(opened, segments)
    starts_out = np.cumsum([0, *(plan.n_out(stop - start) for start, stop in pieces)])
    folder = target / recording.folder
    with draft_store(folder) as draft:
        n_out, n_sensors = int(starts_out[-1]), len(opened.sensors.names)
        signal_TC = draft.signal(n_out, n_sensors)
        auxiliary_TA = np.empty((n_out, len(opened.auxiliary)), np.float32)
        with threadpool_limits(1):  # small products: a second thread waits more than it works (7 s against 0.7 s)
            statistics = _filter_into(signal_TC, auxiliary_TA, opened, found, plan, pieces)
            bad = judge(opened.sensors, found, statistics, settings, recording.path)
            if bad:
                notes.append(f"bad channels: {listed(bad)}; {settings.bad_channels}")
            sensors = with_status(opened.sensors, bad)
            matrix, components = np.eye(n_sensors), None
            if settings.ica != "none":
                matrix, components = ica_matrix(
                    signal_TC, auxiliary_TA, opened.auxiliary, opened.raw, sensors, settings, notes, recording.path
                )
            matrix = repair_matrix(opened.raw, sensors, settings, notes, recording.path) @ matrix
            apply_matrix(signal_TC, matrix)
        to_out = _SampleMap(pieces, starts_out, plan)
        trials = table.trials.assign(onset_sample=to_out(table.trials["onset_sample"].to_numpy()))
        counts = {
            **table.counts,
            "segments": {kind: sum(s.kind == kind for s in segments) for kind in ("bad", "dropout", "boundary")},
            "bad_channels": bad,
            "ica": components,
        }
        draft.finish(
            settings.sfreq,
            sensors,
            trials,
            _segments_out(segments, to_out, n_out),
            {**about(recording, recipe), "counts": counts, "notes": notes},
        )
    return Converted(recording, folder, len(trials), tuple(notes))


def _open(recording: Recording, recipe: Recipe, notes: list[str]) -> tuple[OpenRecording, TrialTable]:
    """The signal and the trials of a BIDS recording, or of one of THINGS-EEG2's files."""
    settings, columns = recipe.convert, recipe.data.events
    if recording.is_eeg2:
        opened = open_eeg2(recording, settings.drop_channels, restore_reference=settings.restore_reference)
        notes += _settings_notes(opened, settings.drop_channels, recording)
        if settings.highpass_hz and recording.run == "training":
            notes.append("its parts are joined without a mark: the high-pass filter rings where they meet")
        return opened, read_codes(recording, columns)
    opened = open_recording(
        recording,
        restore_reference=settings.restore_reference,
        drop_channels=settings.drop_channels,
        compensation=settings.compensation,
        with_auxiliary=settings.ica != "none",
        only_channels=settings.only_channels,
    )
    notes += _settings_notes(opened, settings.drop_channels, recording)
    images = read_images(things_folder(recipe)) if columns.image_number else None
    return opened, read_trials(recording, columns, opened.n_samples, opened.sfreq, notes.append, images)


def about(recording: Recording, recipe: Recipe) -> dict[str, Any]:
    """What a store is made from: equal input and settings give an equal manifest."""
    data, path = [recording.path], recording.path
    if path.suffix == ".ds":
        data = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("._"))
    elif path.suffix in (".vhdr", ".set"):
        data += sorted(p for p in path.parent.glob(f"{path.stem}.*") if p != path)
    elif path.suffix == ".fif":
        parts = [f"{path.stem}-[0-9]*.fif", path.name.replace("_split-01", "_split-[0-9]*")]
        data += sorted({part for name in parts for part in path.parent.glob(name)} - {path})
    sidecars = list(recording.sidecars)
    if recipe.data.events.image_number:
        sidecars.append(read_images(things_folder(recipe)).path)
    settings = conversion_settings(recipe)
    return {
        "modality": recording.modality,
        "settings": settings,
        "settings_digest": digest_of(settings),
        "sources": {path.name: path.stat().st_size for path in data if path.exists()},
        "sidecars": {path.name: file_digest(path) for path in sidecars if path.exists()},
    }


def things_folder(recipe: Recipe) -> Path:
    """The folder with THINGS' tables."""
    return Path(recipe.paths.things or recipe.paths.bids)


def _settings_notes(opened: OpenRecording, drop_channels: Sequence[str], recording: Recording) -> list[str]:
    """What is accepted, but hardly meant."""
    notes = []
    there = {name.split("-")[0] for name in opened.raw.ch_names}
    if missing := [name for name in drop_channels if name.split("-")[0] not in there]:
        notes.append(f"convert.drop_channels: it has no {', '.join(missing)}")
    rate = read_json(recording.sidecar(f"{recording.modality}.json")).get("SamplingFrequency")
    if isinstance(rate, int | float) and abs(rate - opened.sfreq) > 0.01 * opened.sfreq:
        notes.append(f"its header says {opened.sfreq:g} Hz, its sidecar {rate:g} Hz: the header is believed")
    return notes


def some(names: Sequence[str], most: int = 8) -> str:
    """The first few of many names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _trigger_note(opened: OpenRecording, name: str, onset_N: NDArray[np.int64], path: Path) -> str:
    raw = opened.raw
    if name not in raw.ch_names:
        raise DataError(f"{path}: no channel {name!r} (convert.trigger_channel); it has {some(raw.ch_names)}")
    note = check_trigger(raw.get_data(picks=[name], verbose="error")[0], onset_N, opened.sfreq)
    return f"{name}: {note}"


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
        half = hz / 400 + NOTCH_BAND_HZ  # MNE's notch_filter: width hz / 200, and transitions on both sides
        notch = np.convolve(notch, _design(settings.sfreq, hz + half, hz - half, transition=NOTCH_BAND_HZ))
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
    auxiliary_TA: NDArray[np.float32],
    opened: OpenRecording,
    found: Scan,
    plan: FirPlan,
    pieces: Sequence[tuple[int, int]],
) -> ChannelStatistics:
    """Filter piece after piece (no filter runs across a boundary), in V or T, gathering channel statistics."""
    n_sensors = signal_TC.shape[1]
    statistics = ChannelStatistics(n_sensors)
    read = bridged(opened.read, opened.n_samples, found)
    at = 0
    for start, stop in pieces:
        piece = _Shifted(read, start)
        for block in filter_resample(piece, stop - start, plan):
            end = at + len(block)
            np.multiply(block[:, :n_sensors], opened.gain_C[:n_sensors], out=signal_TC[at:end])
            np.multiply(block[:, n_sensors:], opened.gain_C[n_sensors:], out=auxiliary_TA[at:end])
            statistics.add(signal_TC[at:end])
            at = end
    return statistics


@dataclass(frozen=True)
class _Shifted:
    """A piece of a recording, read as if it began at 0."""

    read: ReadBlock
    first: int

    def __call__(self, start: int, stop: int) -> NDArray[np.float32]:
        return self.read(start + self.first, stop + self.first)


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

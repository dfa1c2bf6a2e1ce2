"""events.tsv -> trial table, with the onset's unit decided from evidence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.bids.recordings import Recording, read_json
from synapse_diffusion.config import EventColumns
from synapse_diffusion.errors import DataError
from synapse_diffusion.types import NOT_AVAILABLE, TRIAL_COLUMNS, Say, Segment

MIN_ONSET_DISTANCE_S: Final = 0.02  # no display shows pictures faster; a smaller median betrays a wrong unit
FLAGS: Final = ("is_test", "is_target", "is_catch")
TRUE: Final = ("1", "1.0", "true", "yes")
FALSE: Final = ("0", "0.0", "false", "no", "-1", "", "n/a", "nan")


def read_trials(
    recording: Recording, columns: EventColumns, n_samples: int, sfreq: float, say: Say
) -> tuple[pd.DataFrame, list[Segment]]:
    """The trial table (columns of `TRIAL_COLUMNS`, onsets in samples of this recording) and bad stretches.

    Rows of events.tsv whose `trial_type` begins with BAD are segments, not trials. Raises `DataError`
    naming the file and the row (1 = first below the header) for missing columns, onsets that are no
    numbers or outside the recording, and onsets whose unit the evidence does not decide.
    """
    path = recording.events
    table = _read_table(path)
    wanted = {key: getattr(columns, key) for key in ("image", "concept", "label") if getattr(columns, key)}
    if not columns.image and not columns.label:
        raise DataError(f"{path}: name its image or label column in the recipe (data.events); it has {_names(table)}")
    for key, name in {**wanted, **{f"keep.{name}": name for name in columns.keep}, "": "onset"}.items():
        if name not in table:
            where = f" (data.events.{key})" if key else ""
            raise DataError(f"{path}: no column {name!r}{where}; it has {_names(table)}")
    onset = _numbers(table["onset"], path)
    trial_type = table.get("trial_type", pd.Series("", index=table.index)).str.lower()
    is_bad = trial_type.str.match(r"bad($|[_ ])").to_numpy()
    to_sample = _onset_rule(onset, table, n_samples, sfreq, _events_rate(path, sfreq), columns.onset_unit, path)
    sample = to_sample(onset)
    outside = np.flatnonzero((sample < 0) | (sample >= n_samples))
    if outside.size:
        row = int(outside[0])
        raise DataError(
            f"{path}: row {row + 1}: onset {table['onset'].iloc[row]} is sample {sample[row]}, outside the "
            f"recording of {n_samples} samples ({n_samples / sfreq:.3f} s); {outside.size} rows are"
        )
    scale = 1000.0 if columns.duration_unit == "milliseconds" else 1.0
    duration = pd.to_numeric(table.get("duration", pd.Series("0", index=table.index)), errors="coerce")
    duration_s = np.clip(np.nan_to_num(duration.to_numpy(dtype=float) / scale, posinf=0.0), 0.0, None)
    bad = [
        Segment(int(sample[k]), min(int(sample[k] + duration_s[k] * sfreq) + 1, n_samples), "bad")
        for k in np.flatnonzero(is_bad)
    ]
    keep = ~is_bad
    for name, values in columns.keep.items():
        keep &= table[name].isin(values).to_numpy()
    trials = _trials(table, columns, recording, say).assign(onset_sample=sample, duration_s=duration_s)
    trials = trials.loc[keep, list(TRIAL_COLUMNS)].reset_index(drop=True)
    if trials.empty:
        raise DataError(f"{path}: no trial left of {len(table)} rows; check data.events.keep")
    shown = trials["image_id"].where(trials["image_id"] != NOT_AVAILABLE, trials["label"])
    return trials.assign(repeat=trials.groupby(shown).cumcount()), bad


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no event table beside the recording") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a tab-separated table: {str(error).splitlines()[0]}") from None
    if table.empty:
        raise DataError(f"{path}: the event table has no rows")
    return table


def _names(table: pd.DataFrame) -> str:
    return ", ".join(str(name) for name in table.columns)


def _numbers(column: pd.Series[str], path: Path) -> NDArray[np.float64]:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(f"{path}: row {row + 1}: onset {column.iloc[row]!r} is not a number")
    return values


def _events_rate(path: Path, sfreq: float) -> float:
    """Rate in Hz to which sample numbers in the table refer: the raw recording's, also for a derivative."""
    rate = read_json(path.with_name(path.name.replace("_events.tsv", "_eeg.json"))).get("SamplingFrequency")
    return float(rate) if isinstance(rate, int | float) and rate > 0 else sfreq


def _onset_rule(
    onset: NDArray[np.float64],
    table: pd.DataFrame,
    n_samples: int,
    sfreq: float,
    rate: float,
    unit: str,
    path: Path,
) -> Callable[[NDArray[np.float64]], NDArray[np.int64]]:
    """How `onset` becomes samples of the recording (ds003825: samples up to v1.1.2, seconds from v1.2.0)."""

    def from_seconds(values: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.rint(values * sfreq).astype(np.int64)

    def from_samples(values: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.rint(values * (sfreq / rate)).astype(np.int64)

    rules = {"seconds": from_seconds, "samples": from_samples}
    if unit != "auto":
        return rules[unit]
    if "sample" in table:
        sample = pd.to_numeric(table["sample"], errors="coerce").to_numpy(dtype=float)
        known = np.isfinite(sample)
        if known.any():
            fits = {
                "seconds": bool(np.all(np.abs(onset[known] * rate - sample[known]) <= 1.0)),
                "samples": bool(np.all(np.abs(onset[known] - sample[known]) <= 1.0)),
            }
            if not any(fits.values()):
                row = int(np.flatnonzero(known & (np.abs(onset * rate - sample) > 1))[0])
                raise DataError(
                    f"{path}: row {row + 1}: onset {onset[row]:g} and sample {sample[row]:g} do not agree at "
                    f"{rate:g} Hz, in seconds or in samples; set data.events.onset_unit"
                )
            return rules["seconds" if fits["seconds"] else "samples"]
    distance = np.median(np.diff(np.sort(onset))) if len(onset) > 1 else np.inf
    whole = bool(np.all(onset == np.rint(onset)))
    seconds = float(onset.max()) * sfreq < n_samples
    samples = whole and float(onset.max()) * sfreq / rate < n_samples and distance >= MIN_ONSET_DISTANCE_S * rate
    if seconds and samples:
        raise DataError(
            f"{path}: onsets {onset.min():g}..{onset.max():g} fit the recording both in seconds and in samples; "
            "set data.events.onset_unit"
        )
    return rules["samples" if samples else "seconds"]


def _trials(table: pd.DataFrame, columns: EventColumns, recording: Recording, say: Say) -> pd.DataFrame:
    n = len(table)
    absent = pd.Series([NOT_AVAILABLE] * n, index=table.index)
    image, concept = absent, absent
    if columns.image:
        parts = table[columns.image].str.replace("\\", "/").str.rsplit("/", n=2)
        file_name = parts.str[-1].astype(str)
        name = file_name.str.rsplit(".", n=1).str[0]
        image = name.where(name != "", NOT_AVAILABLE)
        concept = parts.str[-2].fillna(NOT_AVAILABLE)
    if columns.concept:
        concept = table[columns.concept]
    optional = {key: getattr(columns, key) for key in (*FLAGS, "sequence") if getattr(columns, key)}
    missing = [name for name in optional.values() if name not in table]
    if missing:
        say(f"{recording.events.name}: no column {', '.join(missing)}; taken as 0 in every row")
    path = recording.events
    flags = {key: _flag(table, getattr(columns, key), path) for key in FLAGS}
    stem = f"sub-{recording.person}_ses-{recording.session}_run-{recording.run}"
    sequence = _sequence(table, columns.sequence)
    return pd.DataFrame(
        {
            "trial_id": [f"{stem}_{row:06d}" for row in range(n)],
            "image_id": image,
            "concept": concept,
            "person": recording.person,
            "session": recording.session,
            "run": recording.run,
            "sequence": sequence,
            "repeat": 0,
            **flags,
            "label": table[columns.label] if columns.label else absent,
        }
    )


def _flag(table: pd.DataFrame, name: str, path: Path) -> NDArray[np.int64]:
    """1 or 0 a row; a column that is not there, and n/a, are 0."""
    if not name or name not in table:
        return np.zeros(len(table), np.int64)
    text = table[name].str.strip().str.lower()
    value = text.map({**dict.fromkeys(TRUE, 1), **dict.fromkeys(FALSE, 0)})
    if value.isna().any():
        row = int(np.flatnonzero(value.isna())[0])
        raise DataError(f"{path}: row {row + 1}: {name} is {table[name].iloc[row]!r}; a flag must be 0 or 1")
    return np.asarray(value, dtype=np.int64)


def _sequence(table: pd.DataFrame, name: str) -> NDArray[np.int64]:
    """The sequence's number, or where names are given their order of appearance."""
    if not name or name not in table:
        return np.zeros(len(table), np.int64)
    number = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)
    if np.isfinite(number).all():
        return np.asarray(np.rint(number), dtype=np.int64)
    return np.asarray(pd.factorize(table[name])[0], dtype=np.int64)

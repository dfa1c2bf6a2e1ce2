"""events.tsv -> trial table, with the onset's unit decided from evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.bids.concepts import ImageTable
from synapse_diffusion.bids.recordings import Recording, read_json
from synapse_diffusion.config import EventColumns
from synapse_diffusion.errors import DataError
from synapse_diffusion.signal.timing import check_distances
from synapse_diffusion.types import NOT_AVAILABLE, TRIAL_COLUMNS, Say, Segment

MIN_ONSET_DISTANCE_S: Final = 0.02  # no display shows pictures faster; a smaller median betrays a wrong unit
FLAGS: Final = ("is_test", "is_target", "is_catch")
TRUE: Final = ("1", "1.0", "true", "yes")
FALSE: Final = ("0", "0.0", "false", "no", "-1", "", "n/a", "nan")


@dataclass(frozen=True)
class TrialTable:
    """What an event table says of one recording."""

    trials: pd.DataFrame
    """The columns of `TRIAL_COLUMNS`, onsets in samples of this recording."""
    bad: tuple[Segment, ...]
    """Rows whose `trial_type` begins with BAD."""
    counts: Mapping[str, Any]
    """Rows by what became of them, and how far apart onsets are."""
    notes: tuple[str, ...]


def read_trials(
    recording: Recording,
    columns: EventColumns,
    n_samples: int,
    sfreq: float,
    say: Say,
    images: ImageTable | None = None,
) -> TrialTable:
    """Read events.tsv. `images` is needed where the table gives image numbers (`columns.image_number`).

    Raises `DataError` naming the file and the row (1 = first below the header) for missing columns, onsets that are
    no numbers or outside the recording, onsets whose unit the evidence does not decide, and image numbers that THINGS
    does not have or that contradict the concept's number.
    """
    path = recording.events
    table = _read_table(path)
    _require_columns(table, columns, path)
    onset = _numbers(table["onset"], path)
    trial_type = table.get("trial_type", pd.Series("", index=table.index))
    is_bad = trial_type.str.lower().str.match(r"bad($|[_ ])").to_numpy()
    to_sample = _onset_rule(onset, table, n_samples, sfreq, _events_rate(recording, sfreq), columns.onset_unit, path)
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
    chosen = ~is_bad
    for name, values in columns.keep.items():
        chosen &= table[name].isin(values).to_numpy()
    everything = _trials(table, columns, recording, images, say).assign(onset_sample=sample, duration_s=duration_s)
    return table_of(everything, trial_type, chosen, sfreq, columns, path, tuple(bad), is_bad)


def table_of(
    everything: pd.DataFrame,
    trial_type: pd.Series[str],
    chosen: NDArray[np.bool_],
    sfreq: float,
    columns: EventColumns,
    path: Path,
    bad: tuple[Segment, ...] = (),
    is_bad: NDArray[np.bool_] | None = None,
) -> TrialTable:
    """The chosen rows as trials, catch trials by setting; repeats counted, onset distances checked.

    `everything` has the columns of `TRIAL_COLUMNS`, one row a row of the source. Raises `DataError` where none is left.
    """
    sample = everything["onset_sample"].to_numpy()
    is_bad = np.zeros(len(everything), bool) if is_bad is None else is_bad
    catch = chosen & (everything["is_catch"] == 1).to_numpy()
    keep = chosen if columns.keep_catch else chosen & ~catch
    trials = everything.loc[keep, list(TRIAL_COLUMNS)].reset_index(drop=True)
    if trials.empty:
        raise DataError(f"{path}: no trial left of {len(everything)} rows; check data.events.keep")
    shown = trials["image_id"].where(trials["image_id"] != NOT_AVAILABLE, trials["label"])
    sequence = everything["sequence"].to_numpy()
    timing = check_distances(sample[~is_bad], sequence[~is_bad], sfreq, columns.onset_distance_s)
    counts = {
        "rows": len(everything),
        "trial_types": {str(k): int(n) for k, n in sorted(trial_type.value_counts().items())}
        if trial_type.any()
        else {},
        "stored": len(trials),
        "test": int(trials["is_test"].sum()),
        "targets": int(trials["is_target"].sum()),
        "left_out": {
            "catch": int((catch & ~keep).sum()),
            "bad": int(is_bad.sum()),
            "not in data.events.keep": int((~chosen & ~is_bad).sum()),
        },
        "onset_distances": {
            "median_s": round(timing.median_s, 6) if timing.n_distances else None,
            "n": timing.n_distances,
            "outside": timing.n_outside,
        },
    }
    trials = trials.assign(repeat=trials.groupby(shown).cumcount())
    return TrialTable(trials, bad, counts, timing.notes)


def _require_columns(table: pd.DataFrame, columns: EventColumns, path: Path) -> None:
    names = ("image", "image_number", "concept_number", "concept", "label")
    wanted = {key: getattr(columns, key) for key in names if getattr(columns, key)}
    if not (columns.image or columns.image_number or columns.label):
        raise DataError(f"{path}: name its image or label column in the recipe (data.events); it has {_names(table)}")
    for key, name in {**wanted, **{f"keep.{name}": name for name in columns.keep}, "": "onset"}.items():
        if name not in table:
            where = f" (data.events.{key})" if key else ""
            raise DataError(f"{path}: no column {name!r}{where}; it has {_names(table)}")


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no event table beside the recording") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
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


def _events_rate(recording: Recording, sfreq: float) -> float:
    """Rate in Hz to which sample numbers in the table refer: the raw recording's, also for a derivative."""
    name = recording.events.name.replace("_events.tsv", f"_{recording.modality}.json")
    rate = read_json(recording.events.with_name(name)).get("SamplingFrequency")
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


def _trials(
    table: pd.DataFrame, columns: EventColumns, recording: Recording, images: ImageTable | None, say: Say
) -> pd.DataFrame:
    n, path = len(table), recording.events
    absent = pd.Series([NOT_AVAILABLE] * n, index=table.index)
    flags = {key: _flag(table, getattr(columns, key), path) for key in FLAGS}
    image, concept = absent, absent
    if columns.image:
        parts = table[columns.image].str.replace("\\", "/").str.rsplit("/", n=2)
        file_name = parts.str[-1].astype(str)
        name = file_name.str.rsplit(".", n=1).str[0]
        image = name.where(name != "", NOT_AVAILABLE)
        concept = parts.str[-2].fillna(NOT_AVAILABLE)
    elif columns.image_number:
        image, concept = _numbered(table, columns, flags["is_catch"] == 1, images, path)
    if columns.concept:
        concept = table[columns.concept]
    optional = [_column(getattr(columns, key)) for key in (*FLAGS, "sequence") if getattr(columns, key)]
    if missing := [name for name in dict.fromkeys(optional) if name not in table]:
        say(f"{path.name}: no column {', '.join(missing)}; taken as 0 in every row")
    stem = f"sub-{recording.person}_ses-{recording.session}_run-{recording.run}"
    return pd.DataFrame(
        {
            "trial_id": [f"{stem}_{row:06d}" for row in range(n)],
            "image_id": image,
            "concept": concept,
            "person": recording.person,
            "session": recording.session,
            "run": recording.run,
            "sequence": _sequence(table, columns.sequence),
            "repeat": 0,
            **flags,
            "label": table[columns.label] if columns.label else absent,
        }
    )


def _numbered(
    table: pd.DataFrame, columns: EventColumns, is_catch: NDArray[np.bool_], images: ImageTable | None, path: Path
) -> tuple[pd.Series[str], pd.Series[str]]:
    """Image id and concept by THINGS' image number; n/a on catch rows."""
    if images is None:
        raise AssertionError("image numbers need the image table")
    text = table[columns.image_number]
    number = pd.to_numeric(text, errors="coerce").to_numpy(dtype=float)
    n_images = len(images.images)
    with np.errstate(invalid="ignore"):
        known = (number == np.rint(number)) & (number >= 1) & (number <= n_images)
    wrong = np.flatnonzero(~known & ~is_catch)
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"{path}: row {row + 1}: {columns.image_number} is {text.iloc[row]!r}, no image number of "
            f"{images.path.name} (1..{n_images}); {wrong.size} rows are"
        )
    at = np.where(known, number, 1).astype(np.int64) - 1
    if columns.concept_number:
        theirs = pd.to_numeric(table[columns.concept_number], errors="coerce").to_numpy(dtype=float)
        differ = np.flatnonzero((theirs != images.concept_number[at]) & ~is_catch)
        if differ.size:
            row = int(differ[0])
            raise DataError(
                f"{path}: row {row + 1}: {columns.concept_number} is {table[columns.concept_number].iloc[row]!r}, but "
                f"image {number[row]:.0f} is of concept {images.concept_number[at[row]]} ({images.concepts[at[row]]}) "
                f"in {images.path.name}; {differ.size} rows are"
            )
    there = known & ~is_catch
    pick = [k if ok else -1 for k, ok in zip(at, there, strict=True)]
    image = pd.Series([images.images[k] if k >= 0 else NOT_AVAILABLE for k in pick], index=table.index)
    concept = pd.Series([images.concepts[k] if k >= 0 else NOT_AVAILABLE for k in pick], index=table.index)
    return image, concept


def _column(name: str) -> str:
    """`trial_type=catch` and `iscatch` both begin with a column's name."""
    return name.partition("=")[0]


def _flag(table: pd.DataFrame, name: str, path: Path) -> NDArray[np.int64]:
    """1 or 0 a row; a column that is not there, and n/a, are 0."""
    column, equals, value = name.partition("=")
    if not name or column not in table:
        return np.zeros(len(table), np.int64)
    text = table[column].str.strip().str.lower()
    if equals:
        return np.asarray(text == value.strip().lower(), dtype=np.int64)
    flag = text.map({**dict.fromkeys(TRUE, 1), **dict.fromkeys(FALSE, 0)})
    if flag.isna().any():
        row = int(np.flatnonzero(flag.isna())[0])
        raise DataError(f"{path}: row {row + 1}: {name} is {table[name].iloc[row]!r}; a flag must be 0 or 1")
    return np.asarray(flag, dtype=np.int64)


def _sequence(table: pd.DataFrame, name: str) -> NDArray[np.int64]:
    """The sequence's number, or where names are given their order of appearance."""
    if not name or name not in table:
        return np.zeros(len(table), np.int64)
    number = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)
    if np.isfinite(number).all():
        return np.asarray(np.rint(number), dtype=np.int64)
    return np.asarray(pd.factorize(table[name])[0], dtype=np.int64)

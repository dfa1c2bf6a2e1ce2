"""What a page says of each run, part by part; a part that the run lacks is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synapse_diffusion.report import pictures, words
from synapse_diffusion.report.checks import Check, checks, counted
from synapse_diffusion.report.contents import Contents, Row
from synapse_diffusion.report.pictures import Found, Picture, Reconstructions
from synapse_diffusion.report.quality import Table, evoked_figure, trials_table
from synapse_diffusion.runs import CLAIMS
from synapse_diffusion.splits import TEST
from synapse_diffusion.types import Progress, Say

FUSION: Final = ("fused", "eeg", "meg", "sum")
EVOKED: Final = (
    "Evoked response of each person: the mean over trials at all sensors, global field power, and maps at its peaks."
)
RIVALS: Final = ("eeg", "meg", "sum", "two eeg people", "two meg people")
FIGURES: Final = {
    "confusion": (r"confusion_(val|test)|questions_(val|test)", "Confusion matrices"),
    "repeats": (r"retrieval", "Repeats"),
    "time": (r"(?!maps_).*_(eeg|meg)", "Time-resolved decoding"),
    "maps": (r"maps_(eeg|meg)", "Sensors and latencies"),
    "people": (r"adaptation", "New people"),
    "curve": (r"curve", "Learning curve"),
}
"""By part, names of figures that `evaluate` draws, and the part's title."""
CAPTIONS: Final = {
    "confusion_val": "Confusion matrix, validation: rows what was seen, columns what was decoded.",
    "confusion_test": "Confusion matrix, test: rows what was seen, columns what was decoded.",
    "questions_val": "Area under the curve of each question, validation.",
    "questions_test": "Area under the curve of each question, test.",
    "retrieval": "How often the picture that was seen comes first, over the number of repeats that are averaged.",
    "adaptation": "What labelled trials of people are worth whom training never met.",
    "maps_eeg": "What EEG sensors and latencies contribute to the fall of the validation loss (integrated "
    "gradients): all sensors over time, and maps. Red: the decoder needs them.",
    "maps_meg": "What MEG sensors and latencies contribute to the fall of the validation loss (integrated "
    "gradients): all sensors over time, and maps. Red: the decoder needs them.",
    "curve": "Training and validation loss and the validation score over the steps; one line a fold and member.",
}
TIMED: Final = {
    "auc": "Decoded from each moment alone, mean over people. Grey: chance",
    "rank_above_chance": "The picture found from each moment alone, mean over people: 0 is chance, in grey with its "
    "spread",
    "split_half_reliability": "How alike responses to one picture are in two halves of its trials, at each moment",
    "similarity_to_targets": "How alike pictures that are alike as targets are in the brain, at each moment. Grey: "
    "chance",
    "generalisation": "Decoders of one moment (up) asked at every other (right); white is chance",
}
"""Captions of figures over time, by name."""


@dataclass(frozen=True)
class Bar:
    """A figure as numbers and as places from 0 to 100 on a line that a table's rows share."""

    name: str
    row: Row
    zero: float
    value: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class Scores:
    """A table of score rows under a title, with what its figures are of."""

    title: str
    caption: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Part:
    """Figures under a title."""

    key: str
    title: str
    figures: tuple[Picture, ...]


@dataclass(frozen=True)
class Page:
    """All that is said of one run."""

    contents: Contents
    question: str
    scope: str
    reconstructions: Reconstructions | None
    drawn_answer: tuple[str, str] | None
    drawn: tuple[Scores, ...]
    scores: tuple[Scores, ...]
    people: tuple[Scores, ...]
    fusion: tuple[Scores, ...]
    meanings: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]
    found: tuple[Found, ...]
    found_note: str
    trials: Table
    evoked: Picture | None
    evoked_note: str
    checks: tuple[Check, ...]
    checked: str
    recipe: str
    versions: tuple[tuple[str, str], ...]

    @property
    def keys(self) -> set[str]:
        """Of the parts that are there."""
        return {part.key for part in self.parts}


def page_of(contents: Contents, n_runs: int, say: Say, progress: Progress) -> Page:
    """Every part of a run."""
    found, note = pictures.gallery(contents) if contents.task == "retrieve" else ([], "")
    evoked = evoked_figure(contents, progress)
    if isinstance(evoked, str):
        say(f"no evoked response: {evoked}")
    checked = checks(contents)
    about = contents.provenance
    return Page(
        contents=contents,
        question=words.question(contents),
        scope=words.scope(contents),
        reconstructions=pictures.reconstructions(contents, n_runs),
        drawn_answer=_two_way(contents),
        drawn=_of_reconstructions(contents),
        scores=_of_models(contents),
        people=_of_people(contents),
        fusion=_of_fusion(contents),
        meanings=words.meanings(contents),
        parts=tuple(_parts(contents)),
        found=tuple(found),
        found_note=note,
        trials=trials_table(contents),
        evoked=None if isinstance(evoked, str) else _figure(contents, evoked, EVOKED),
        evoked_note=evoked if isinstance(evoked, str) else "",
        checks=tuple(checked),
        checked=counted(checked),
        recipe=(contents.run.folder / "recipe.toml").read_text(encoding="utf-8"),
        versions=(*about["versions"].items(), ("python", about["python"]), ("platform", about["platform"])),
    )


def side_by_side(contents: Sequence[Contents]) -> Table | None:
    """Headline scores of several runs; None of one."""
    if len(contents) < 2:
        return None
    rows = []
    for one in contents:
        about = (one.recipe.data.name, words.MODALITY[one.recipe.data.modality], f"{len(one.people)}", one.decoder)
        for row in one.headline:
            figures = (words.value(row), words.interval(row), words.value(row, "chance"), words.p_cell(row))
            what = f"{words.METRIC[row['metric']]}" + (f" of {row['gallery']}" if row["gallery"] else "")
            rows.append((one.name, *about, what, words.repeats(row["k_repeats"]), *figures, f"{row['seed']}"))
    columns = ("run", "data set", "from", "people", "decoder", "metric", "decisions of", "value", "95 % interval",
               "chance", "p", "seed")  # fmt: skip
    return Table("Test scores of the runs; they compare only where data set, metric and chance are the same.",
                 columns, tuple(rows))  # fmt: skip


def _by_repeats(rows: Sequence[Row], caption: str, names: Sequence[str] | None = None) -> tuple[Scores, ...]:
    found = []
    for k in sorted({int(row["k_repeats"]) for row in rows}):
        mine = [n for n, row in enumerate(rows) if row["k_repeats"] == k]
        shown = [names[n] if names else words.model(rows[n]) for n in mine]
        found.append(Scores(words.repeats(k), caption, _bars([rows[n] for n in mine], shown)))
    return tuple(found)


def _bars(rows: Sequence[Row], names: Sequence[str]) -> tuple[Bar, ...]:
    numbers = [row[key] for row in rows for key in ("value", "low", "high", "chance") if row[key] is not None]
    near, far = min([0.0, *numbers]), max([0.0, *numbers])
    span = (far - near) or 1.0

    def place(x: float | None) -> float:
        return 0.0 if x is None else round(100 * (float(x) - near) / span, 1)

    return tuple(
        Bar(name, row, place(0.0), *(place(row[key]) for key in ("value", "low", "high", "chance")))
        for name, row in zip(names, rows, strict=True)
    )


def _of_models(contents: Contents) -> tuple[Scores, ...]:
    rows = [row for row in contents.scores if row["person"] == "all"]
    caption = f"{words.METRIC[contents.metric]} on test: every model, then controls; lines are 95 % intervals"
    if any(row["model"] == "observer" for row in rows):
        caption += "; the observer knows how the study was simulated: on the average nobody can do better from trials"
    return _by_repeats(rows, caption)


def _of_people(contents: Contents) -> tuple[Scores, ...]:
    rows = [
        row for row in contents.scores
        if row["person"] != "all" and row["model"] == contents.decoder and row["control"] in CLAIMS
    ]  # fmt: skip
    if len({row["person"] for row in rows}) < 2:
        return ()
    names = [f"sub-{row['person']}" for row in rows]
    return _by_repeats(rows, f"{words.METRIC[contents.metric]} on test of each person", names)


def _of_fusion(contents: Contents) -> tuple[Scores, ...]:
    if contents.recipe.data.modality != "comb":
        return ()
    rows = [
        row for row in contents.scores
        if row["person"] == "all" and row["control"] in CLAIMS
        if row["model"] in FUSION or " people" in row["model"] or row["model"].startswith("fused without")
    ]  # fmt: skip
    lead = [
        row for row in contents.rows
        if row["split"] == TEST and row["person"] == "all" and row["metric"] == "right_more_often"
        if row["model"] in tuple(f"fused - {name}" for name in RIVALS)
        if row["control"] == "none"
    ]  # fmt: skip
    metric = words.METRIC[contents.metric]
    return (
        *_by_repeats(rows, f"{metric} on test: both modalities, each alone, and the sum of two decoders"),
        *_by_repeats(lead, "how much more often the fusion is right, paired over pictures; 0: no difference"),
    )


def _of_reconstructions(contents: Contents) -> tuple[Scores, ...]:
    """Of all people; of each, where they were shown different pictures and have no brain's scores in common."""
    every = [row for row in contents.rows if row["task"] == "reconstruct"]
    who = sorted({row["person"] for row in every if row["model"] == "brain"})
    return tuple(
        scores
        for person in (["all"] if "all" in who else who)
        for scores in _of_pictures([row for row in every if row["person"] in (person, "all")], person)
    )


def _of_pictures(mine: list[Row], person: str) -> list[Scores]:
    largest = max((row["k_repeats"] for row in mine), default=0)
    mine = [row for row in mine if row["k_repeats"] in (0, largest)]
    whose = "" if person == "all" else f"sub-{person}, "
    found = []
    for metric in dict.fromkeys(row["metric"] for row in mine):
        plain = [row for row in mine if row["metric"] == metric and " - " not in row["model"]]
        lead = [row for row in mine if row["metric"] == metric and " - " in row["model"]]
        for rows, more in ((lead, ", paired differences"), (plain, "")):
            if rows:
                names = [_drawn_from(row["model"]) for row in rows]
                about = f"brain: {whose}{words.repeats(largest)}"
                found.append(Scores(words.drawn(metric) + more, about, _bars(rows, names)))
    return found


def _two_way(contents: Contents) -> tuple[str, str] | None:
    """What the brain adds to two-way identification by pixels, from the most repeats; None without reconstructions."""
    mine = [
        row for row in contents.rows
        if row["task"] == "reconstruct" and row["metric"] == "two_way pixels" and row["person"] == "all"
    ]  # fmt: skip
    of = {row["model"]: row for row in sorted(mine, key=lambda row: int(row["k_repeats"]))}
    if not {"brain", "none", "brain - none"} <= set(of):
        return None
    return words.brain_adds(of["brain - none"], of["brain"], of["none"])


def _drawn_from(model: str) -> str:
    """The model of a reconstruction's row, or the difference of two, in words."""
    return " − ".join(pictures.TITLES.get(name, name.replace("_", " ")) for name in model.split(" - "))


def _parts(contents: Contents) -> list[Part]:
    paths = sorted((contents.run.folder / "figures").glob("*.png"))
    found = []
    for key, (pattern, title) in FIGURES.items():
        mine = [path for path in paths if re.fullmatch(pattern, path.stem)]
        figures = tuple(_figure(contents, path, CAPTIONS.get(path.stem, "")) for path in mine)
        if figures:
            found.append(Part(key, title, figures))
    return found


def _figure(contents: Contents, path: Path, caption: str) -> Picture:
    if not caption:
        name, _, modality = path.stem.rpartition("_")
        caption = f"{TIMED.get(name, name.replace('_', ' '))}, {modality.upper()}."
    return pictures.figure(path, f"{caption} {_numbers(contents, path.stem)}".strip(), caption)


def _numbers(contents: Contents, name: str) -> str:
    """What a figure shows, for those who do not see it."""
    if name == "curve":
        curve = contents.run.curve
        best = curve.iloc[int(curve["validation_score"].to_numpy().argmax())]
        return f"The best validation score is {best['validation_score']:.3f} at step {best['step']}."
    if name in ("confusion_test", "questions_test", "retrieval"):
        return "; ".join(f"{words.repeats(row['k_repeats'])}: {words.answer(row)}" for row in contents.headline) + "."
    peaks = [row for row in contents.rows if row["metric"] == f"peak_{name.rpartition('_')[0]}"]
    mine = [row for row in peaks if row["modality"] == name.rpartition("_")[2]]
    return "; ".join(
        f"peak {row['value']:.3f}, chance {row['chance']:.3f}, p = {words.number(row['p'])}" for row in mine
    )

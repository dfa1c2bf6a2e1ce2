"""Figures in words: what was asked, and what the answer is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from synapse_diffusion.report.contents import Contents, Row
from synapse_diffusion.splits import TEST

ALPHA: Final = 0.05
MODALITY: Final = {"eeg": "EEG", "meg": "MEG", "comb": "EEG and MEG together"}
METRIC: Final = {"balanced_accuracy": "balanced accuracy", "auc": "mean AUC", "top1": "top-1"}
PERCENT: Final = ("balanced_accuracy", "accuracy", "top1", "top5", "two_way", "right_more_often", "concept_top")
SHOWN_NAMES: Final = 12
DRAWN: Final = {
    "pixcorr": "PixCorr, correlation of pixels", "ssim": "SSIM, structural similarity",
    "mean_colour": "correlation of mean colour over pictures", "two_way": "two-way identification",
    "two_way_within_category": "two-way identification within a category", "top1": "true picture found among all",
}  # fmt: skip
MEANINGS: Final = {
    "linear": "shrinkage LDA or ridge regression, the baseline",
    "encoding": "a linear model from pictures to responses, asked which picture explains the trial best",
    "observer": "knows how the study was simulated; no decoder of trials is better on the average",
    "prestimulus": "control: the time before the picture",
    "noise": "control: noise as input",
    "mean": "control: the mean of all trials as input, so always one answer",
    "wrong_person": "another person's weights",
    "shuffled_labels": "control: trained on labels that were dealt at random",
    "image_features": "control without a brain: what oriented energy and colour of the picture tell",
    "sum": "sum of both modalities' calibrated log likelihoods",
    "shuffled": "drawn from another trial's signal",
    "no_brain": "no brain: drawn by the same generator with the same noise, from nothing",
    "other_person": "drawn with another person's weights",
    "true": "true vector: drawn from the picture's own numbers, the ceiling of what a brain could say",
    "autoencoder": "autoencoder alone: the picture encoded and decoded; no generator can do better",
    "nearest": "nearest in training: the training picture nearest to what the brain says",
}
"""Of models and controls, as they are called in scores.json."""


def question(contents: Contents) -> str:
    """What was decoded, from whom."""
    who, of = _people(contents.people), MODALITY[contents.recipe.data.modality]
    names = [str(name) for name in contents.provenance["classes"]]
    if contents.task == "retrieve":
        return f"Which of {contents.headline[0]['gallery']} pictures did {who} see? Found from {of}."
    if contents.task == "questions":
        return f"To which of {len(names)} categories does the picture belong that {who} saw? Decoded from {of}."
    return f"Which of {len(names)} categories did {who} see? Decoded from {of}."


def scope(contents: Contents) -> str:
    """How many trials, pictures, concepts."""
    test = contents.splits[contents.splits["split"] == TEST]
    trials, images, concepts = (test[name].nunique() for name in ("trial_id", "image_id", "concept"))
    shapes = contents.provenance["shape"]
    sensors = ", ".join(f"{shape['n_sensors']} {name.upper()} sensors" for name, shape in shapes.items())
    view = contents.recipe.view
    text = f"{count(trials, 'test trial')} of {count(images, 'picture')} of {count(concepts, 'concept')}; {sensors}; "
    text += f"{view.start_s:g} to {view.stop_s:g} s around onset; data set {contents.recipe.data.name}."
    if contents.task == "retrieve":
        return text
    return f"{text} Categories: {some([str(name) for name in contents.provenance['classes']])}."


def verdict(row: Row) -> str:
    """Whether a figure is above chance, by p after Holm (p, where there is none) and its interval."""
    p = row["p_holm"] if row.get("p_holm") is not None else row["p"]
    if row["low"] is None or row["chance"] is None:
        return "unknown"
    above = row["low"] > row["chance"] and (p is None or p < ALPHA)
    return "above chance" if above else "not shown to be above chance"


def answer(row: Row) -> str:
    """One figure with interval, chance and p."""
    what = {
        "top1": "the picture that was seen comes first", "two_way pixels": "of two pictures the drawn one is more like "
        "the one that was seen, by pixels", "balanced_accuracy": "balanced accuracy", "auc": "mean AUC",
    }.get(row["metric"], row["metric"])  # fmt: skip
    p = f"; {holm(row)}" if row["p"] is not None or row.get("p_holm") is not None else ""
    return f"{what}: {value(row)}, 95 % interval {interval(row)}, chance {value(row, 'chance')}{p}"


def brain_adds(difference: Row, brain: Row, none: Row) -> tuple[str, str]:
    """The headline of reconstructions, brain minus no brain, and its figures."""
    more = difference["low"] is not None and difference["low"] > 0
    said = "more than without a brain" if more else "not shown to be more than without a brain"
    return f"Pictures drawn from {repeats(brain['k_repeats'])}: {said}", (
        "told from another by its pixels, the drawn picture is nearer to the one that was seen more often by "
        f"{value(difference)}, 95 % interval {interval(difference)} (from the brain {value(brain)}, {holm(brain)}; "
        f"without {value(none)}; chance {value(brain, 'chance')})"
    )


def drawn(metric: str) -> str:
    """A metric of reconstructions, and by which features."""
    name, _, features = metric.partition(" ")
    return DRAWN.get(name, name.replace("_", " ")) + (f", by {features}" if features else "")


def meanings(contents: Contents) -> tuple[tuple[str, str], ...]:
    """What the names of models and controls on the page mean, those that occur."""
    there = {str(row[key]) for row in contents.rows for key in ("model", "control")}
    return tuple((name.replace("_", " "), what) for name, what in MEANINGS.items() if name in there)


def repeats(k: int) -> str:
    """Of what a decision is made."""
    return "single trials" if k == 1 else f"means of {k} repeats" if k else "no repeats"


def value(row: Row, key: str = "value") -> str:
    """A figure of the row, in percent where it is a share."""
    number = row[key]
    if number is None:
        return "n/a"
    if row["metric"].startswith(PERCENT):
        return f"{100 * number:.1f} %"
    return f"{number:.3f}"


def interval(row: Row) -> str:
    """`low to high`."""
    return "n/a" if row["low"] is None else f"{value(row, 'low')} to {value(row, 'high')}"


def holm(row: Row) -> str:
    """P, corrected where there is a correction."""
    if row.get("p_holm") is not None:
        return f"p = {number(row['p_holm'])} after Holm"
    return "no p" if row["p"] is None else f"p = {number(row['p'])}, not corrected"


def p_cell(row: Row) -> str:
    """The same for a table."""
    return f"{number(row['p_holm'])} (Holm)" if row.get("p_holm") is not None else number(row["p"])


def number(x: float | None) -> str:
    """Two digits that count; .0005 of p as it is."""
    return "n/a" if x is None else f"{x:.2g}"


def count(n: int, what: str) -> str:
    """`1 picture`, `1,152 pictures`."""
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def some(names: Sequence[str], most: int = SHOWN_NAMES) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def model(row: Row) -> str:
    """The model, and as which control."""
    control = "" if row["control"] == "none" else f", {row['control'].replace('_', ' ')}"
    return str(row["model"]) + control


def _people(names: Sequence[str]) -> str:
    if len(names) > 3:
        return f"{len(names)} people"
    return " and ".join(f"sub-{name}" for name in names)

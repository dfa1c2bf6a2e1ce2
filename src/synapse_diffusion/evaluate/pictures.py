"""The pictures of a scored run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from synapse_diffusion.evaluate.newcomers import ADAPTED, FROM_SCRATCH, OWN_SCALING
from synapse_diffusion.evaluate.scoring import Answered
from synapse_diffusion.figures import draw_bars, draw_confusions, draw_curve, draw_learning, draw_retrieval
from synapse_diffusion.metrics import confusion, per_question
from synapse_diffusion.models.fusion import FUSED
from synapse_diffusion.splits import TEST, VALIDATION
from synapse_diffusion.training.baselines import LINEAR
from synapse_diffusion.training.trained import Trained

NAMES: Final = {VALIDATION: "val", TEST: "test"}
MAIN_METRIC: Final = {"classify": "balanced_accuracy", "questions": "auc", "retrieve": "top1"}
SHOWN: Final = {"balanced_accuracy": "balanced accuracy", "auc": "mean AUC", "top1": "top-1"}


def draw_part(trained: Trained, answers: Sequence[Answered], split: str) -> None:
    """Confusion matrices of the decoder (classes), or the AUC of each question."""
    setting, folder = trained.setting, trained.run.folder / "figures"
    ours = FUSED if setting.sources.is_fusion else setting.recipe.model.name
    mine = [answer for answer in answers if answer.model == ours and answer.control == "none"]
    people = ", ".join(f"sub-{p}" for p in sorted({p for a in mine for p in a.trials["person"]})[:6])
    title = f"{split}: {ours} decoder, {setting.recipe.data.name} ({people})"
    names = setting.task.names
    if setting.task.kind == "classify":
        counts = [
            (_caption(answer.k_repeats), confusion(answer.truth_N, answer.score_NK.argmax(1), len(names)))
            for answer in mine
        ]
        draw_confusions(counts, names, title, folder / f"confusion_{NAMES[split]}.png")
    elif setting.task.answers is not None:
        last = mine[-1]
        area_Q, _ = per_question(last.score_NK, setting.task.answers[last.truth_N])
        rows = [(name, float(a), np.nan, np.nan) for name, a in zip(names, area_Q, strict=True) if np.isfinite(a)]
        rows.sort(key=lambda row: -row[1])
        draw_bars(rows, 0.5, f"{title}\nAUC, {_caption(last.k_repeats)}", folder / f"questions_{NAMES[split]}.png")


def draw_scores(trained: Trained, rows: Sequence[dict[str, Any]]) -> None:
    """Every model beside the others with its interval, the curve over repeats, controls, the training curve."""
    setting, folder = trained.setting, trained.run.folder / "figures"
    metric = MAIN_METRIC[setting.task.kind]
    test = [r for r in rows if r["split"] == TEST and r["person"] == "all" and r["metric"] == metric]
    plain = [r for r in test if r["control"] in ("none", "shuffled_labels") and not r["transductive"]]
    smallest = min((r["gallery"] or 0 for r in plain), default=0)
    plain = [r for r in plain if (r["gallery"] or 0) == smallest]
    name = setting.recipe.data.name
    among = f" of {smallest} images" if smallest else ""
    for k in sorted({r["k_repeats"] for r in plain}):
        bars = [_bar(r["model"], r) for r in plain if r["k_repeats"] == k]
        bars += [_bar(f"{r['model']}, {r['control']}", r) for r in test if r["k_repeats"] == k and r not in plain
                 and (r["gallery"] or 0) in (0, smallest)]  # fmt: skip
        chance = next(r["chance"] for r in plain if r["k_repeats"] == k)
        title = f"test: {SHOWN[metric]}{among}, {name}, {_caption(k)}"
        draw_bars(bars, chance, title, folder / f"models_{k}.png")
    if setting.task.kind == "retrieve":
        curves: dict[str, list[tuple[int, float, float, float]]] = {}
        for r in plain:
            curves.setdefault(r["model"], []).append(
                (r["k_repeats"], r["value"], _number(r["low"]), _number(r["high"]))
            )
        draw_retrieval(curves, plain[0]["chance"], f"test: top-1{among}, {name}", folder / "retrieval.png")
    if setting.recipe.split.adapt_trials:
        _draw_adaptation(trained, plain, metric)
    draw_curve(trained.run.curve, folder / "curve.png")


def _draw_adaptation(trained: Trained, test: Sequence[dict[str, Any]], metric: str) -> None:
    """What labelled trials of new people are worth; `test`: rows of this metric."""
    setting = trained.setting
    main, sizes = setting.recipe.model.name, setting.recipe.split.adapt_trials
    panels = []
    for k in sorted({row["k_repeats"] for row in test}):
        of = {row["model"]: row for row in test if row["k_repeats"] == k and row["control"] == "none"}

        def curve(name: str, model: str, first: str = "", of: Mapping[str, dict[str, Any]] = of) -> list[Any]:
            names = {n: name.format(model=model, n=n) for n in sizes} | ({0: first} if first else {})
            return [(n, *_bar("", of[known])[1:]) for n, known in names.items() if known in of]

        curves = {
            f"{main}, own weights": curve(ADAPTED, main, OWN_SCALING.format(model=main)),
            f"{main} from scratch": curve(FROM_SCRATCH, main),
            "linear from scratch": curve(FROM_SCRATCH, LINEAR),
        }
        levels = {f"{name}, nothing of theirs": of[name]["value"] for name in (main, LINEAR) if name in of}
        panels.append((_caption(k), {name: rows for name, rows in curves.items() if rows}, levels))
    people = ", ".join(f"sub-{person}" for person in setting.recipe.split.new_people)
    title = f"test: {setting.recipe.data.name}, people whom training never met ({people})"
    path = trained.run.folder / "figures/adaptation.png"
    draw_learning(panels, test[0]["chance"], SHOWN[metric], title, path)


def _bar(name: str, row: dict[str, Any]) -> tuple[str, float, float, float]:
    return name, row["value"], _number(row["low"]), _number(row["high"])


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _caption(k: int) -> str:
    return "single trials" if k == 1 else f"means of {k} repeats"

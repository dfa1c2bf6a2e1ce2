"""The pictures of a scored run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from synapse_diffusion.evaluate.scoring import Answered
from synapse_diffusion.figures import draw_bars, draw_confusions, draw_curve, draw_retrieval
from synapse_diffusion.metrics import confusion, per_question
from synapse_diffusion.models.fusion import FUSED
from synapse_diffusion.splits import TEST, VALIDATION
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
    draw_curve(trained.run.curve, folder / "curve.png")


def _bar(name: str, row: dict[str, Any]) -> tuple[str, float, float, float]:
    return name, row["value"], _number(row["low"]), _number(row["high"])


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _caption(k: int) -> str:
    return "single trials" if k == 1 else f"means of {k} repeats"

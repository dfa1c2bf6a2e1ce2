"""The pictures of a scored run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from synapse_diffusion.evaluate.newcomers import ADAPTED, FROM_SCRATCH, OWN_SCALING
from synapse_diffusion.evaluate.scoring import Answered
from synapse_diffusion.figures.scores import draw_bars, draw_learning
from synapse_diffusion.metrics import per_question
from synapse_diffusion.runs import MAIN_METRIC, SHOWN, bar, caption
from synapse_diffusion.splits import TEST, VALIDATION
from synapse_diffusion.training.baselines import LINEAR
from synapse_diffusion.training.trained import Trained

NAMES: Final = {VALIDATION: "val", TEST: "test"}


def draw_part(trained: Trained, answers: Sequence[Answered], split: str) -> None:
    """Confusion matrices of the decoder (classes), or the AUC of each question."""
    setting, folder = trained.setting, trained.run.folder / "figures"
    if setting.task.kind == "classify":
        trained.run.draw_confusion(split, folder / f"confusion_{NAMES[split]}.png")
    elif setting.task.answers is not None:
        ours = trained.run.decoder
        mine = [answer for answer in answers if answer.model == ours and answer.control == "none"]
        people = ", ".join(f"sub-{p}" for p in sorted({p for a in mine for p in a.trials["person"]})[:6])
        last = mine[-1]
        area_Q, _ = per_question(last.score_NK, setting.task.answers[last.truth_N])
        names = zip(setting.task.names, area_Q, strict=True)
        rows = [(name, float(area), np.nan, np.nan) for name, area in names if np.isfinite(area)]
        rows.sort(key=lambda row: -row[1])
        title = f"{split}: {ours} decoder, {setting.recipe.data.name} ({people})\nAUC, {caption(last.k_repeats)}"
        draw_bars(rows, 0.5, title, folder / f"questions_{NAMES[split]}.png")


def draw_scores(trained: Trained) -> None:
    """Every model beside the others with its interval, the curve over repeats, controls, the training curve."""
    run, folder = trained.run, trained.run.folder / "figures"
    rows, _ = run.main_rows()
    for k in sorted({row["k_repeats"] for row in rows}):
        run.draw_models(k, folder / f"models_{k}.png")
    if run.task == "retrieve":
        run.draw_retrieval(folder / "retrieval.png")
    if trained.setting.recipe.split.adapt_trials:
        _draw_adaptation(trained, rows)
    run.draw_curve(folder / "curve.png")


def _draw_adaptation(trained: Trained, test: Sequence[dict[str, Any]]) -> None:
    """What labelled trials of new people are worth; `test`: rows of the main metric."""
    setting = trained.setting
    main, sizes = setting.recipe.model.name, setting.recipe.split.adapt_trials
    panels = []
    for k in sorted({row["k_repeats"] for row in test}):
        of = {row["model"]: row for row in test if row["k_repeats"] == k and row["control"] == "none"}

        def curve(name: str, model: str, first: str = "", of: Mapping[str, dict[str, Any]] = of) -> list[Any]:
            names = {n: name.format(model=model, n=n) for n in sizes} | ({0: first} if first else {})
            return [(n, *bar("", of[known])[1:]) for n, known in names.items() if known in of]

        curves = {
            f"{main}, own weights": curve(ADAPTED, main, OWN_SCALING.format(model=main)),
            f"{main} from scratch": curve(FROM_SCRATCH, main),
            "linear from scratch": curve(FROM_SCRATCH, LINEAR),
        }
        levels = {f"{name}, nothing of theirs": of[name]["value"] for name in (main, LINEAR) if name in of}
        panels.append((caption(k), {name: rows for name, rows in curves.items() if rows}, levels))
    people = ", ".join(f"sub-{person}" for person in setting.recipe.split.new_people)
    title = f"test: {setting.recipe.data.name}, people whom training never met ({people})"
    path = trained.run.folder / "figures/adaptation.png"
    draw_learning(panels, test[0]["chance"], SHOWN[MAIN_METRIC[trained.run.task]], title, path)

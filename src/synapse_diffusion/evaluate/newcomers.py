"""People whom training never met, asked again once something of them is known: signals, then labelled trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from synapse_diffusion.evaluate.asking import Question
from synapse_diffusion.splits import ADAPT
from synapse_diffusion.training.adaptation import (
    Newcomer,
    Person,
    adapt,
    calibrate,
    from_scratch,
    linear_from_scratch,
    load_person,
    met,
)
from synapse_diffusion.training.baselines import LINEAR
from synapse_diffusion.training.decisions import first_rows
from synapse_diffusion.training.decoding import FoldModels, Scores, network_names
from synapse_diffusion.training.examples import Asked
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.trained import Trained
from synapse_diffusion.types import Progress

OWN_SCALING: Final = "{model}, own scaling"
ADAPTED: Final = "{model}, {n} trials"
FROM_SCRATCH: Final = "{model} from scratch, {n} trials"
"""How models are called in scores.json."""


@dataclass(frozen=True)
class Newcomers:
    """Decoders by what is known of each person; all of these answer under the names that they go by."""

    of_person: Mapping[str, list[tuple[str, FoldModels]]]
    """Of each person, a name with `{model}` in it, and decoders."""

    def ask(self, question: Question, person_N: Any, gallery_K: Index | None) -> dict[str, Scores]:
        """Scores (N, K) by model, each decision by the decoders of its person (N,)."""
        parts: dict[str, dict[str, Scores]] = {}
        for person, known in self.of_person.items():
            asked = question.asked.only(person_N == person)
            for name, models in known if len(asked) else ():
                asked_N = _of_one(asked) if "scratch" in name else asked
                for model, scores in models.ask(asked_N, gallery_K, question.k_repeats).items():
                    parts.setdefault(name.format(model=model), {})[person] = scores
        people = set(person_N)
        return {name: _put_together(of, person_N) for name, of in parts.items() if set(of) == people}


def first_person(trained: Trained, asked: Asked) -> Any:
    """Whose (N,) each decision is."""
    name = next(iter(asked.picks))
    trials = trained.setting.sources.of[name].trials
    return trials["person"].to_numpy(dtype=str)[first_rows(asked, name)]


def _put_together(of: Mapping[str, Scores], person_N: Any) -> Scores:
    out = np.empty((len(person_N), next(iter(of.values())).shape[1]))
    for person, scores in of.items():
        out[person_N == person] = scores
    return out


def _of_one(asked: Asked) -> Asked:
    """Decoders of one person know them by the index 0."""
    picks = {name: replace(pick, person_N=np.zeros_like(pick.person_N)) for name, pick in asked.picks.items()}
    return Asked(picks, asked.target_N)


def newcomers(trained: Trained, number: int, models: FoldModels, progress: Progress) -> Newcomers | None:
    """Meet the recipe's new people: by their own signals alone, then by more and more labelled trials.

    What was trained is kept in the run's checkpoints, and read from there the next time.
    """
    settings = trained.setting.recipe.split
    if not settings.new_people:
        return None
    [(name, source)] = trained.setting.sources.of.items()
    mine = trained.rows(number, ADAPT)[name]
    person_N = source.trials["person"].to_numpy(dtype=str)[mine]
    found: dict[str, list[tuple[str, FoldModels]]] = {}
    for k, person in enumerate(settings.new_people):
        progress("meeting new people", k, len(settings.new_people))
        rows = mine[person_N == person]
        labelled = rows[trained.setting.task.of[name].stratum_N[rows] >= 0]
        found[person] = _known(Newcomer(trained, number, trained.setting, person, rows, labelled), models, progress)
    return Newcomers(found)


def _known(of: Newcomer, models: FoldModels, progress: Progress) -> list[tuple[str, FoldModels]]:
    """One person's decoders."""
    [main] = network_names(of.setting)
    calibrated = calibrate(of)
    known = [(OWN_SCALING, met(models, calibrated))]
    sizes = of.setting.recipe.split.adapt_trials
    for k, n in enumerate(sizes):
        progress(f"{of.name}: learning {n} trials", k, len(sizes))
        rows = of.first(n)
        target_N = of.targets(rows)
        path = of.trained.run.checkpoint(f"{of.stage}_{of.name}_{n}_trials")
        person = load_person(path) if path.exists() else _kept(adapt(of, calibrated, rows, target_N), path)
        known.append((ADAPTED.replace("{n}", str(n)), replace(met(models, person), baselines={})))
        alone = from_scratch(of, calibrated, rows, target_N, path.with_name(f"{of.stage}_{of.name}_{n}_scratch"))
        linear = linear_from_scratch(of, models, calibrated, rows, target_N)
        baselines = {} if linear is None else {of.modality: {LINEAR: linear}}
        data = met(models, calibrated).data
        known.append((
            FROM_SCRATCH.replace("{n}", str(n)), FoldModels(of.setting, data, {main: alone}, baselines)
        ))  # fmt: skip
    return known


def _kept(person: Person, path: Any) -> Person:
    person.save(path)
    return person

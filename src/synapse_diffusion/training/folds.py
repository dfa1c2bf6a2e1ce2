"""The fits of one fold: networks chosen on validation, then fitted on all; closed-form decoders; what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from synapse_diffusion.errors import SplitError
from synapse_diffusion.models.fusion import FUSED
from synapse_diffusion.parallel import (
    Group,
    most,
    wait_for_all,
)
from synapse_diffusion.runs import Run, load_tensors, save_atomically
from synapse_diffusion.splits import TEST, TRAIN, VALIDATION
from synapse_diffusion.store.files import write_table
from synapse_diffusion.training.baselines import (
    Sample,
    choose_baseline,
    fit_baseline,
    kinds_for,
    plain_objective,
)
from synapse_diffusion.training.data import ScaledEpochs, accepted, fit_limits, fit_scalers
from synapse_diffusion.training.decisions import columns, decision_table, gallery_of
from synapse_diffusion.training.decoders import build_learner, save_learner
from synapse_diffusion.training.decoding import (
    baseline_name,
    load_models,
    load_network,
    modalities_of,
    network_name,
    network_names,
    shapes_of,
    temperature,
)
from synapse_diffusion.training.examples import Asked
from synapse_diffusion.training.fitting import Course, fit
from synapse_diffusion.training.learner import LINEAR_TRIALS
from synapse_diffusion.training.loop import OnCheck
from synapse_diffusion.training.parts import Fold, check_final, final_rows
from synapse_diffusion.training.precision import calibrate
from synapse_diffusion.training.requests import Requests
from synapse_diffusion.training.setting import Index, Setting


class FoldFits:
    """The fits of one fold: choices on validation, then the final ones on all that shares nothing with test."""

    def __init__(self, setting: Setting, run: Run, fold: Fold, number: int, group: Group, requests: Requests) -> None:
        self.setting, self.run, self.fold, self.number, self.group = setting, run, fold, number, group
        self.requests = requests
        self.name, recipe = f"fold{number}", setting.recipe
        rows = {part: setting.rows(fold, part) for part in (TRAIN, VALIDATION)}
        for modality, source in setting.sources.of.items():
            limits = fit_limits(source.epochs, rows[TRAIN][modality], recipe.view, recipe.train.seed)
            if group.rank == 0:
                run.add_limits(setting.scaler_stage(self.name, modality), limits)
            for part, of in rows.items():
                of[modality] = accepted(source.epochs, of[modality], recipe.view, limits)
                self._still_there(part, modality, of[modality], limits)
        self.rows = rows
        self.targets = {part: setting.targets(of, number) for part, of in rows.items()}
        self.data = self._scaled(rows[TRAIN], self.name)
        wait_for_all(group)

    def _still_there(self, part: str, modality: str, rows: Index, limits: Mapping[str, float]) -> None:
        task = self.setting.task
        wanted = set(range(len(task.names))) if task.kind == "classify" else {0}
        target_N = task.of[modality].target_N[rows]
        there = set(target_N) if task.kind == "classify" else {0} if len(rows) else set()
        if not wanted <= there:
            raise SplitError(
                f"view.reject = {self.setting.recipe.view.reject!r} leaves the {part} part without some class; the "
                "limits are " + ", ".join(f"{limit:.3g}" for limit in limits.values())
            )

    def networks(self, next_fit: Callable[[], OnCheck]) -> pd.DataFrame:
        """Train every network, twice where a final fit is asked for; all processes together. Returns the curves."""
        recipe, curves = self.setting.recipe, []
        steps: dict[tuple[str, int], int] = {}
        for model in network_names(self.setting):
            found = self.choices(model, next_fit)
            steps |= {(model, member): _best_step(curve) for member, curve in enumerate(found)}
            curves += found
        if recipe.train.refit:
            rows, data = self.final()
            for model in network_names(self.setting):
                for member in range(recipe.train.members):
                    n_steps = steps[model, member]
                    self._fit(f"{self.name}_refit", model, member, data, rows, next_fit(), n_steps)
        return pd.concat(curves, ignore_index=True)

    def choices(self, model: str, next_fit: Callable[[], OnCheck]) -> list[pd.DataFrame]:
        """Each member's curve: fitted on training trials, and stopped by validation."""
        return [
            self._fit(self.name, model, member, self.data, self.rows[TRAIN], next_fit(), None).assign(
                fold=self.number, member=member, model=model
            )
            for member in range(self.setting.recipe.train.members)
        ]

    def final(self) -> tuple[dict[str, Index], dict[str, ScaledEpochs]]:
        """Rows and scaled data of the final fit."""
        setting, recipe, rows = self.setting, self.setting.recipe, {}
        for modality, source in setting.sources.of.items():
            stratum_N = setting.task.of[modality].stratum_N
            found = final_rows(source, stratum_N, self.fold[modality], recipe, fused=setting.sources.is_fusion)
            limits = self.run.read_limits(setting.scaler_stage(self.name, modality))
            rows[modality] = accepted(source.epochs, found, recipe.view, limits)
        check_final(rows, self.fold, setting.sources, recipe)
        return rows, self._scaled(rows, f"{self.name}_refit")

    def _scaled(self, rows: Mapping[str, Index], stage: str) -> dict[str, ScaledEpochs]:
        """Epochs under scalers that are fitted on these rows and kept in the run."""
        setting, found = self.setting, {}
        for modality, source in setting.sources.of.items():
            name = setting.scaler_stage(stage, modality)
            target_N, view = setting.task.of[modality].target_N, setting.recipe.view
            if n_test := int((self.fold[modality][rows[modality]] == TEST).sum()):
                raise SplitError(f"leak: {n_test} test trials of {modality} would be in the scalers of {name}")
            fitted = fit_scalers(source.epochs, rows[modality], target_N, view, name, setting.recipe.train.seed)
            if self.group.rank == 0:
                self.run.add_scalers(fitted)
            found[modality] = ScaledEpochs(source.epochs, fitted, name, view)
        return found

    def _fit(
        self, stage: str, model: str, member: int, data: Mapping[str, ScaledEpochs], rows: Mapping[str, Index],
        on_check: OnCheck, n_steps: int | None,
    ) -> pd.DataFrame:  # fmt: skip
        """Train one network and keep it; its curve. Read back if an earlier call finished it."""
        setting, recipe, group = self.setting, self.setting.recipe, self.group
        path = self.run.checkpoint(network_name(setting, stage, model, member))
        curve_path = path.with_suffix(".tsv")
        if most(int(path.exists() and curve_path.exists()), group):
            curve = pd.read_csv(curve_path, sep="\t")
            if n_steps is None:
                on_check(int(curve["step"].iloc[-1]), _last_row(curve))
            return curve
        names = modalities_of(setting, model)
        rows = {name: rows[name] for name in names}
        targets = setting.targets(rows, self.number)
        final = n_steps is not None
        key = (recipe.train.seed, self.number, member, int(final))
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        objective = setting.task.objective(recipe, np.concatenate(list(targets.values())))
        shapes = shapes_of(setting, names, objective)
        learner = build_learner(shapes, objective, recipe, max(len(r) for r in rows.values()), group)
        unfinished = path.with_name(f"{path.stem}_unfinished.safetensors")
        validation = None if final else self.validation(names)
        chosen = {name: data[name] for name in names}
        course = Course(
            chosen, setting.examples(rows, targets), validation, recipe.train, recipe.execution, key, unfinished,
            group, self.requests, n_steps,
        )  # fmt: skip
        curve = pd.DataFrame(fit(learner, course, setting.cells, on_check))
        save_learner(learner, path, group)
        wait_for_all(group)
        if group.rank == 0:
            self._weigh(path, stage, model, member)
            write_table(curve, curve_path)  # says that all of it is done
            unfinished.unlink(missing_ok=True)
        wait_for_all(group)
        return curve

    def _weigh(self, path: Path, stage: str, model: str, member: int) -> None:
        """How far each modality is trusted: from validation, and for a final fit as it was chosen there."""
        if model != FUSED or self.setting.recipe.model.fusion == "early":
            return
        tensors = load_tensors(path)
        if stage == self.name:
            learner = load_network(self.setting, self.run, stage, model, member, self.targets[TRAIN])
            calibrate(learner, self.validation(tuple(self.rows[VALIDATION])), self.data)
            tensors["network.exponent_M3"] = learner.network.state_dict()["exponent_M3"]
        else:
            chosen = load_tensors(self.run.checkpoint(network_name(self.setting, self.name, model, member)))
            tensors["network.exponent_M3"] = chosen["network.exponent_M3"]
        save_atomically(tensors, path)

    def validation(self, names: Sequence[str]) -> Asked:
        """Every validation trial; of a fusion, pairs."""
        rows = {name: self.rows[VALIDATION][name] for name in names}
        if len(names) == 1:
            [name] = names
            return self.setting.single(name, rows[name], self.targets[VALIDATION][name])
        return self.setting.examples(rows, {name: self.targets[VALIDATION][name] for name in names}).each()

    def baselines(self) -> None:
        """Closed-form decoders: choices on validation, then fitted on all, and kept."""
        setting, recipe = self.setting, self.setting.recipe
        final = self.final() if recipe.train.refit else None
        for modality in setting.sources.of:
            shape, pooled_only = setting.shapes[modality], bool(recipe.split.new_people)
            for kind in kinds_for(setting.task, setting.recipe):
                path = self.run.checkpoint(baseline_name(setting, self.name, kind, modality))
                final_path = self.run.checkpoint(baseline_name(setting, f"{self.name}_refit", kind, modality))
                if path.exists() and (final is None or final_path.exists()):
                    continue
                training, objective = self._sample(self.data, self.rows[TRAIN], self.targets[TRAIN], modality)
                validation, _ = self._sample(self.data, self.rows[VALIDATION], self.targets[VALIDATION], modality)
                chosen = choose_baseline(kind, training, validation, shape, objective, pooled_only=pooled_only)
                chosen.save(path)
                if final is not None:
                    rows, data = final
                    sample, objective = self._sample(data, rows, setting.targets(rows, self.number), modality)
                    (fit_baseline(kind, sample, chosen.choice, shape, objective) or chosen).save(final_path)

    def _sample(
        self, data: Mapping[str, ScaledEpochs], rows: Mapping[str, Index], targets: Mapping[str, Index], modality: str
    ) -> tuple[Sample, Any]:
        """At most `LINEAR_TRIALS` scaled trials, and what their targets mean without learning."""
        setting, mine = self.setting, rows[modality]
        rng = np.random.default_rng([setting.recipe.train.seed, len(mine)])
        some = np.sort(rng.permutation(len(mine))[:LINEAR_TRIALS])
        x_NCT = data[modality].read(mine[some]).cpu().numpy()
        person_N, target_N = setting.sources.of[modality].person_index[mine[some]], targets[modality][some]
        return Sample(x_NCT, person_N, target_N), plain_objective(setting.task, setting.recipe, targets[modality])

    def predict(self) -> pd.DataFrame:
        """What every decoder says to validation's single trials (of a fusion, pairs)."""
        models = load_models(self.setting, self.run, self.name, self.targets[TRAIN])
        asked = self.validation(tuple(self.setting.sources.of))
        gallery = gallery_of(self.setting, asked.target_N)
        truth_N = columns(self.setting, asked.target_N, gallery)
        answers = models.ask(asked, gallery)
        self.run.add_temperatures(
            self.name, {model: temperature(self.setting, score, truth_N) for model, score in answers.items()}
        )
        tables = [
            decision_table(self.setting, asked, gallery, score, model, self.number, 1)
            for model, score in answers.items()
        ]
        return pd.concat(tables, ignore_index=True)


def _last_row(curve: pd.DataFrame) -> dict[str, float]:
    """What the loop says at the last check of this curve."""
    last = {str(name): float(value) for name, value in curve.iloc[-1].items()}
    return {**last, "best_loss": float(curve["validation_loss"].min())}


def _best_step(curve: pd.DataFrame) -> int:
    return int(curve["step"].to_numpy()[curve["validation_loss"].to_numpy().argmin()])

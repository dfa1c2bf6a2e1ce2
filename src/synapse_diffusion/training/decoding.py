"""What the decoders of a fold say to decisions: scores (N, K) by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from synapse_diffusion.models.base import Shape
from synapse_diffusion.models.fusion import FUSED, Network
from synapse_diffusion.parallel import Group
from synapse_diffusion.runs import Run
from synapse_diffusion.training.baselines import Baseline, kinds_for, load_baseline, plain_objective
from synapse_diffusion.training.data import ScaledEpochs
from synapse_diffusion.training.decoders import add_person, build_learner, load_learner
from synapse_diffusion.training.examples import Asked, Batch, chunks, read
from synapse_diffusion.training.learner import Learner
from synapse_diffusion.training.objectives import Images, Objective
from synapse_diffusion.training.precision import best_odds_temperature, best_temperature
from synapse_diffusion.training.setting import Index, Setting

SUM: Final = "sum"
"""Late fusion: calibrated log likelihoods of the modalities' own decoders, added."""
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class FoldModels:
    """The trained decoders of one fold's stage, loaded, with their data's scalers."""

    setting: Setting
    data: Mapping[str, ScaledEpochs]
    networks: Mapping[str, Sequence[Learner]]
    """Members by model: the decoder, or `fused` and each modality's own."""
    baselines: Mapping[str, Mapping[str, Baseline]]
    """By modality and kind."""

    def ask(
        self, asked: Asked, gallery_K: Index | None = None, k_repeats: int = 1, only: str = ""
    ) -> dict[str, Scores]:
        """Scores (N, K) of every model (of one network only, if asked); of images, the gallery's rows of the target
        table."""
        found: dict[str, list[Scores]] = {}
        for at in chunks(len(asked)):
            batch = read(asked.part(at), self.data)
            for model, score_BK in self.answer(batch, gallery_K, k_repeats, only).items():
                found.setdefault(model, []).append(score_BK)
        return {model: np.concatenate(scores) for model, scores in found.items()}

    @torch.no_grad()
    def answer(
        self, batch: Batch, gallery_K: Index | None = None, k_repeats: int = 1, only: str = ""
    ) -> dict[str, Scores]:
        """Scores of one batch; of one network only, if asked."""
        found = {}
        if only:
            return {only: self._by_network(self.networks[only], batch, gallery_K)}
        for model, members in self.networks.items():
            found[model] = self._by_network(members, batch, gallery_K)
            if model == FUSED:
                for missing in batch.signals:
                    found[f"{FUSED} without {missing}"] = self._by_network(members, without(batch, missing), gallery_K)
        for modality, kinds in self.baselines.items():
            x_NCT, person_N = batch.signals[modality].cpu().numpy(), batch.people[modality].cpu().numpy()
            for kind, baseline in kinds.items():
                name = f"{kind} {modality}" if self.setting.sources.is_fusion else kind
                found[name] = baseline.scores(x_NCT, person_N, gallery_K, k_repeats)
        return found

    def _by_network(self, members: Sequence[Learner], batch: Batch, gallery_K: Index | None) -> Scores:
        """The members' mean score."""
        total = torch.zeros((), dtype=torch.float64)
        for member in members:
            part = batch_of(batch, member.network.modalities)
            gallery = None if gallery_K is None else torch.from_numpy(gallery_K).to(batch.target_B.device)
            total = total + member.objective.scores(member(part, None), gallery).cpu() / len(members)
        return np.asarray(total.numpy())

    @torch.no_grad()
    def own(self, modality: str, asked: Asked, gallery_K: Index | None = None) -> Scores:
        """Scores (N, K) of a fusion's decoder of one modality alone."""
        parts = [read(asked.part(at), self.data) for at in chunks(len(asked))]
        return np.concatenate([self._by_network(self.networks[modality], batch, gallery_K) for batch in parts])

    @torch.no_grad()
    def spaces(self, asked: Asked, gallery_K: Index, model: str) -> tuple[Scores, Scores]:
        """Predicted (N, D) and the gallery's (K, D) vectors whose inner products are a network's scores.

        Members side by side, since each may have learned a space of its own.
        """
        members = self.networks[model]
        parts: list[list[torch.Tensor]] = [[] for _ in members]
        for at in chunks(len(asked)):
            batch = read(asked.part(at), self.data)
            for found, member in zip(parts, members, strict=True):
                out = member(batch_of(batch, member.network.modalities), None).double()
                found.append(torch.nn.functional.normalize(out, dim=1).cpu())
        predicted_ND = torch.cat([torch.cat(found) for found in parts], 1)
        galleries = []
        for member in members:
            assert isinstance(member.objective, Images)
            vectors = member.objective.vectors(torch.from_numpy(gallery_K).to(batch.target_B.device)).double()
            galleries.append(torch.nn.functional.normalize(vectors, dim=1).cpu() / len(members))
        return np.asarray(predicted_ND.numpy()), np.asarray(torch.cat(galleries, 1).numpy())

    def vectors(self, batch: Batch, model: str) -> NDArray[np.float32]:
        """Predicted vectors (B, D) of images: unit vectors, of several members side by side over the root of their
        number: a cosine is then the mean of theirs.
        """
        members = self.networks[model]
        with torch.no_grad():
            out = [torch.nn.functional.normalize(member(batch, None), dim=1) for member in members]
        return np.asarray((torch.cat(out, 1) / len(members) ** 0.5).cpu().numpy())

    @torch.no_grad()
    def image_vectors(self, model: str) -> NDArray[np.float32]:
        """All images' own vectors (U, D) in the space of `vectors`."""
        members = self.networks[model]
        assert self.setting.task.table is not None
        index_U = torch.arange(len(self.setting.task.table.rows))
        found = []
        for member in members:
            assert isinstance(member.objective, Images)
            at = index_U.to(next(member.parameters()).device)
            found.append(torch.nn.functional.normalize(member.objective.vectors(at), dim=1))
        return np.asarray((torch.cat(found, 1) / len(members) ** 0.5).cpu().numpy())


def batch_of(batch: Batch, names: Sequence[str]) -> Batch:
    """The batch's signals of these modalities."""
    signals, people, present = ({n: of[n] for n in names} for of in (batch.signals, batch.people, batch.present))
    return Batch(signals, people, present, batch.target_B)


def without(batch: Batch, missing: str) -> Batch:
    """The batch as if one modality had not been recorded."""
    present = {n: torch.zeros_like(p) if n == missing else p for n, p in batch.present.items()}
    return Batch(batch.signals, batch.people, present, batch.target_B)


def load_models(setting: Setting, run: Run, stage: str, trained: Mapping[str, Index]) -> FoldModels:
    """Open a stage's decoders; `trained`: the target of every training trial, by modality."""
    scalers = run.read_scalers()
    view = setting.recipe.view
    data = {
        name: ScaledEpochs(source.epochs, scalers, setting.scaler_stage(stage, name), view)
        for name, source in setting.sources.of.items()
    }
    networks = {
        model: [
            load_network(setting, run, stage, model, member, trained) for member in range(setting.recipe.train.members)
        ]
        for model in network_names(setting)
    }
    baselines: dict[str, dict[str, Baseline]] = {}
    for name in setting.sources.of:
        baselines[name] = {}
        for kind in kinds_for(setting.task, setting.recipe):
            objective = plain_objective(setting.task, setting.recipe, trained[name])
            baselines[name][kind] = load_baseline(run.checkpoint(baseline_name(setting, stage, kind, name)), objective)
    return FoldModels(setting, data, networks, baselines)


def load_network(
    setting: Setting, run: Run, stage: str, model: str, member: int, trained: Mapping[str, Index], n_training: int = 1
) -> Learner:
    """One member, in evaluation mode; people who were not trained get weights that know nothing of them.

    `n_training`: trials over which its prior counts, should it learn on.
    """
    names = modalities_of(setting, model)
    target_N = np.concatenate([trained[name] for name in names])
    objective = setting.task.objective(setting.recipe, target_N)
    learner = build_learner(shapes_of(setting, names, objective), objective, setting.recipe, n_training, Group())
    load_learner(learner, run.checkpoint(network_name(setting, stage, model, member)))
    if isinstance(learner.network, Network):
        for name in names:
            add_person(learner.network.decoder(name))
    device = setting.sources.of[names[0]].epochs.device
    return learner.to(device).eval()


def shapes_of(setting: Setting, names: Sequence[str], objective: Objective) -> dict[str, Shape]:
    """Shapes of these modalities' decoders, for the objective's outputs and the solutions that it begins at."""
    early = len(names) > 1 and setting.recipe.model.fusion == "early"
    return {
        name: replace(
            setting.shapes[name],
            n_outputs=objective.n_outputs,
            starts=min(objective.starts, 1) if early or objective.starts < 2 else setting.shapes[name].n_people,
        )
        for name in names
    }


def network_names(setting: Setting) -> tuple[str, ...]:
    """The models that steps train: the recipe's decoder; for a fusion the fused one and each modality's own."""
    if setting.sources.is_fusion:
        return (FUSED, *setting.sources.of)
    return (setting.recipe.model.name,)


def modalities_of(setting: Setting, model: str) -> tuple[str, ...]:
    """What a model sees."""
    return (model,) if setting.sources.is_fusion and model != FUSED else tuple(setting.sources.of)


def network_name(setting: Setting, stage: str, model: str, member: int) -> str:
    """A member's file in the run."""
    return f"{stage}_{model}_member{member}" if setting.sources.is_fusion else f"{stage}_member{member}"


def baseline_name(setting: Setting, stage: str, kind: str, modality: str) -> str:
    """A baseline's file in the run."""
    return f"{stage}_{kind}_{modality}" if setting.sources.is_fusion else f"{stage}_{kind}"


def temperature(setting: Setting, score_NK: Scores, truth_N: Index) -> float:
    """The temperature at which validation scores are best calibrated; `truth_N`: columns, or rows of answers."""
    score, truth = torch.from_numpy(score_NK), torch.from_numpy(truth_N)
    if setting.task.answers is not None:
        return best_odds_temperature(score, torch.from_numpy(setting.task.answers[truth_N]))
    return best_temperature(score, truth, balanced=setting.task.kind == "classify")


def log_likelihood(setting: Setting, score_NK: Scores, at: float) -> Scores:
    """Calibrated: log probabilities, or log odds of yes."""
    if setting.task.answers is not None:
        return score_NK / at
    return np.asarray(torch.log_softmax(torch.from_numpy(score_NK) / at, 1).numpy())

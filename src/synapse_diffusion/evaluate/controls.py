"""Controls: what must be at chance, and what pictures alone tell, asked of the same trials in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from synapse_diffusion.config import Recipe
from synapse_diffusion.config.recordings import NOTCH_BAND_HZ
from synapse_diffusion.errors import SynapseError
from synapse_diffusion.evaluate.asking import Question
from synapse_diffusion.evaluate.confounds import IMAGE_FEATURES, image_feature_answers
from synapse_diffusion.evaluate.scoring import Answered, answered
from synapse_diffusion.models.fusion import Network
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.training.baselines import LINEAR, Sample, fit_baseline, plain_objective
from synapse_diffusion.training.data import ScaledEpochs, fit_scalers
from synapse_diffusion.training.decoding import FoldModels, Scores, network_names
from synapse_diffusion.training.examples import Asked, Batch, chunks, read
from synapse_diffusion.training.learner import LINEAR_TRIALS
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.trained import Trained


def control_answers(
    trained: Trained, number: int, models: FoldModels, question: Question, gallery_K: Index | None,
    features: EmbeddingTable | None,
) -> list[Answered]:  # fmt: skip
    """Answers of the controls that `evaluate.controls` names; `features` of the images, where they are there."""
    setting, wanted, k = trained.setting, trained.setting.recipe.evaluate.controls, question.k_repeats
    found: list[Answered] = []
    recipe, main = setting.recipe, network_names(setting)[0]
    key = recipe.evaluate.seed, number, k
    for control in wanted:
        scores: dict[str, Scores] = {}
        asked = question.asked
        if control == "mean":
            scores = {m: _mean(s) for m, s in models.ask(asked, gallery_K, k).items() if m in (main, LINEAR)}
        elif control == "noise":
            scores = _changed(models, asked, gallery_K, main, lambda batch, at: _noise(batch, (*key, at)))
        elif control == "wrong_person":
            if _knows_people(models, main) and any(source.n_people > 1 for source in setting.sources.of.values()):
                scores = _changed(models, asked, gallery_K, main, lambda batch, _: _wrong_person(trained, batch))
        elif control == IMAGE_FEATURES:
            if features is not None:
                found += image_feature_answers(trained, number, question, features)
        elif recipe.train.baselines and not setting.sources.is_fusion:
            before = _before_the_picture(trained, number, question, gallery_K)
            if before is not None:
                asked, scores = before
        found += answered(setting, asked, gallery_K, scores, k, number, control) if scores else []
    return found


def _knows_people(models: FoldModels, main: str) -> bool:
    """Has the decoder (of a fusion, has one of them) weights of people's own? Early fusion knows none."""
    network = models.networks[main][0].network
    return isinstance(network, Network) and any(network.decoder(m).person_tensors() for m in network.modalities)


def _mean(score_NK: Scores) -> Scores:
    return np.repeat(score_NK.mean(0, keepdims=True), len(score_NK), axis=0)


def _changed(
    models: FoldModels, asked: Asked, gallery_K: Index | None, main: str, change: Callable[[Batch, int], Batch]
) -> dict[str, Scores]:
    """What the network says to other signals; `change` is told which decision is a batch's first."""
    parts = []
    for at in chunks(len(asked)):
        batch = change(read(asked.part(at), models.data), at.start)
        parts.append(models.answer(batch, gallery_K, only=main)[main])
    return {main: np.concatenate(parts)}


def _noise(batch: Batch, key: Sequence[int]) -> Batch:
    """White noise as strong as each trial's scaled signal, of each batch its own."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    signals = {
        name: torch.randn(x.shape, generator=generator).to(x.device) * x.std((1, 2), keepdim=True)
        for name, x in batch.signals.items()
    }
    return replace(batch, signals=signals)


def _wrong_person(trained: Trained, batch: Batch) -> Batch:
    people = {name: (person + 1) % trained.setting.sources.of[name].n_people for name, person in batch.people.items()}
    return replace(batch, people=people)


def _before_the_picture(
    trained: Trained, number: int, question: Question, gallery_K: Index | None
) -> tuple[Asked, dict[str, Scores]] | None:
    """The linear baseline trained and tested on windows as long as the view's that end before the onset.

    They end half the longest filter kernel early, since a zero-phase filter leaks backwards. None where no window fits.
    """
    setting, recipe = trained.setting, trained.setting.recipe
    [(name, source)] = setting.sources.of.items()
    stop = -_half_kernel_s(recipe)
    length = recipe.view.stop_s - recipe.view.start_s
    try:
        epochs = Epochs(source.epochs.stores, stop - length, stop, None, source.epochs.channels, source.epochs.device)
    except SynapseError:
        return None
    usable = epochs.trials["usable"].to_numpy()
    final = trained.trained_rows(number, final=True)[name]
    rows = final[usable[final]]
    pick = question.asked.picks[name]
    whole = np.add.reduceat(~usable[pick.rows], np.cumsum(pick.size_N) - pick.size_N) == 0
    target_N = setting.task.of[name].target_N.copy()
    target_N[rows] = setting.targets({name: rows}, number)[name]
    if not whole.any() or len(rows) < 2 or epochs.n_times != source.epochs.n_times:
        return None
    groups = [g for g, kept in zip(np.split(pick.rows, np.cumsum(pick.size_N)[:-1]), whole, strict=True) if kept]
    kept_pick = replace(
        pick, rows=np.concatenate(groups), size_N=pick.size_N[whole], person_N=pick.person_N[whole]
    )  # fmt: skip
    asked = Asked({name: kept_pick}, question.asked.target_N[whole])
    scalers = fit_scalers(epochs, rows, target_N, recipe.view, "before", recipe.train.seed)
    data = ScaledEpochs(epochs, scalers, "before", recipe.view)
    rng = np.random.default_rng([recipe.train.seed, len(rows)])
    some = np.sort(rng.permutation(rows)[:LINEAR_TRIALS])
    sample = Sample(data.read(some).cpu().numpy(), source.person_index[some], target_N[some])
    objective = plain_objective(setting.task, recipe, target_N[rows])
    chosen = trained.models(number, final=True).baselines[name][LINEAR].choice
    fitted = fit_baseline(LINEAR, sample, chosen, setting.shapes[name], objective)
    if fitted is None:
        return None
    parts = []
    for at in chunks(len(asked)):
        batch = read(asked.part(at), {name: data})
        parts.append(
            fitted.scores(
                batch.signals[name].cpu().numpy(), batch.people[name].cpu().numpy(), gallery_K, question.k_repeats
            )
        )
    return asked, {LINEAR: np.concatenate(parts)}


def _half_kernel_s(recipe: Recipe) -> float:
    """Half of what `convert`'s filters reach: a kernel of MNE's 3.3 / transition band (firwin, Hamming) for the band,
    one more for each notch."""
    convert = recipe.convert
    bands = [max(0.25 * (convert.lowpass_hz or convert.sfreq / 2), 2.0)]
    if convert.highpass_hz:
        bands.append(min(max(0.25 * convert.highpass_hz, 2.0), convert.highpass_hz))
    return 0.5 * (3.3 / min(bands) + len(convert.notch_hz) * 3.3 / NOTCH_BAND_HZ)

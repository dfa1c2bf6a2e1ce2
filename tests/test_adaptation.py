"""A person whom training never met: own scaling, few-shot weights, and what must not help."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from conftest import quiet
from synapse_diffusion.adapt import adapt_run
from synapse_diffusion.config import Recipe, parse_recipe
from synapse_diffusion.config.tree import conversion_settings, digest_of
from synapse_diffusion.errors import RunError, SettingsError, SplitError
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.models.base import Shape
from synapse_diffusion.predict import predict
from synapse_diffusion.runs import Run
from synapse_diffusion.splits import ADAPT, TEST, check_split
from synapse_diffusion.store.embeddings import EmbeddingTable, true_rows, write_embeddings
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import draft_store
from synapse_diffusion.train import train
from synapse_diffusion.training import baselines
from synapse_diffusion.training.adaptation import Newcomer, Person, adapt, calibrate, load_person, met
from synapse_diffusion.training.data import fit_scalers
from synapse_diffusion.training.decoders import DECODERS, add_person, learn_person_only, person_row, set_person
from synapse_diffusion.training.sources import open_sources
from synapse_diffusion.training.trained import open_trained
from synapse_diffusion.types import SensorArray

N_SENSORS, RATE, WINDOW = 12, 50.0, 20  # Hz; samples
CLASSES, CONCEPTS, EXEMPLARS = ("a", "b", "c", "d"), 14, 10
SIZES = (24, 120)


def mixed(rng: np.random.Generator, mixing_CS: NDArray[np.float64], label_N: NDArray[np.int64]) -> Any:
    """Signals (T, C) in V: each class its own sources with a course, seen through a person's mixing, in noise."""
    pattern_KS = 0.7 * np.random.default_rng(1).standard_normal((len(CLASSES), mixing_CS.shape[1]))
    signal_TC = rng.standard_normal(((len(label_N) + 2) * 25, N_SENSORS))
    for k, label in enumerate(label_N):
        at = 25 * (k + 1)
        signal_TC[at : at + WINDOW] += np.outer(np.hanning(WINDOW), mixing_CS @ pattern_KS[label])
    return 1e-5 * signal_TC


def write_person(recipe: Recipe, person: str, departure: float, session: str = "01") -> None:
    """A recording of someone whose mixing is the shared one and, by `departure`, their own."""
    rng = np.random.default_rng([7, int(person)])
    shared, own = (r.standard_normal((N_SENSORS, 5)) / np.sqrt(5) for r in (np.random.default_rng(0), rng))
    rng = np.random.default_rng([8, int(person), int(session)])
    names = [f"{kind}{k:02d}" for kind in CLASSES for k in range(CONCEPTS)]
    concept = rng.permutation(np.repeat(names, EXEMPLARS))
    label = np.array([CLASSES.index(name[0]) for name in concept])
    trials = pd.DataFrame({
        "trial_id": [f"sub-{person}_{session}_{k:05d}" for k in range(len(concept))], "concept": concept,
        "image_id": [f"{name}_{person}_{session}_{k}" for k, name in enumerate(concept)], "session": session,
        "person": person, "run": "x-01", "sequence": np.arange(len(concept)) // 20, "repeat": 0,
        "onset_sample": 25 * (1 + np.arange(len(concept))),
        "duration_s": 0.1, "is_test": 0, "is_target": 0, "is_catch": 0, "label": np.array(CLASSES)[label],
    })  # fmt: skip
    sensors = SensorArray(
        tuple(f"E{k}" for k in range(N_SENSORS)), ("eeg",) * N_SENSORS, ("V",) * N_SENSORS,
        np.full((N_SENSORS, 3), np.nan), ("good",) * N_SENSORS,
    )  # fmt: skip
    mixing_CS = np.sqrt(1 - departure**2) * shared + departure * own
    signal_TC = mixed(rng, mixing_CS, label)
    folder = Path(recipe.paths.stores) / "mixed" / f"sub-{person}/ses-{session}/run-x-01"
    with draft_store(folder) as draft:
        draft.signal(*signal_TC.shape)[:] = signal_TC
        about = {"settings_digest": digest_of(conversion_settings(recipe)), "modality": "eeg", "notes": []}
        draft.finish(RATE, sensors, trials, (), about)


def mixed_recipe(folder: Path, *overrides: str) -> Recipe:
    return parse_recipe(
        {
            "paths": {"stores": str(folder / "stores"), "runs": str(folder / "runs"), "bids": str(folder)},
            "data": {"name": "mixed", "people": ["01", "02", "03", "04"]},
            "view": {"stop_s": WINDOW / RATE},
            "labels": {"source": "column", "classes": list(CLASSES)},
            "split": {
                "validation_sequences": 0.0, "test_sequences": 0.0, "new_people": ["04"], "adapt_trials": list(SIZES),
                "test_concepts": 0.25,
            },
            "train": {"steps": 40, "checks": 4},
            "evaluate": {"permutations": 0, "bootstrap": 0, "controls": [], "k_repeats": [1]},
            "execution": {"checkpoint_minutes": 0.0, "threads": 1},
        },
        overrides,
    )  # fmt: skip


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people whose mixing is much the same, and one whose is rather their own."""
    folder = tmp_path_factory.mktemp("mixed")
    for person, departure in (("01", 0.3), ("02", 0.3), ("03", 0.3), ("04", 0.9), ("05", 0.9)):
        write_person(mixed_recipe(folder), person, departure)
    write_person(mixed_recipe(folder), "05", 0.9, "02")
    return folder


@pytest.fixture(scope="module")
def run(people: Path) -> Run:
    return train(mixed_recipe(people), "x", "test", quiet, quiet)


@pytest.fixture(scope="module")
def scores(run: Run) -> list[dict[str, Any]]:
    return evaluate(run.folder, quiet, quiet)


def accuracy(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {
        r["model"]: r["value"]
        for r in rows
        if r["split"] == "test" and r["person"] == "all" and r["metric"] == "balanced_accuracy"
    }


def newcomer(run: Run) -> tuple[Newcomer, Person]:
    trained = open_trained(run.folder, quiet)
    rows = trained.rows(0, ADAPT)["eeg"]
    of = Newcomer(trained, 0, trained.setting, "04", rows, rows)
    return of, calibrate(of)


def correct(of: Newcomer, person: Person) -> float:
    """Share of the test trials that are decoded right."""
    models = met(of.trained.models(0, final=True), person)
    rows = of.trained.rows(0, TEST)["eeg"]
    truth_N = of.setting.task.of["eeg"].target_N[rows]
    score_NK = models.ask(of.setting.single("eeg", rows, truth_N), only="compact")["compact"]
    return float((score_NK.argmax(1) == truth_N).mean())


def test_a_person_apart_gains_from_their_own_trials(scores: list[dict[str, Any]]) -> None:
    found = accuracy(scores)
    assert set(found) == {"compact", "linear", "compact, own scaling", "linear, own scaling"} | {
        name for n in SIZES for name in
        (f"compact, {n} trials", f"compact from scratch, {n} trials", f"linear from scratch, {n} trials")
    }  # fmt: skip
    curve = [found["compact, own scaling"], *(found[f"compact, {n} trials"] for n in SIZES)]
    assert all(after > before - 0.03 for before, after in itertools.pairwise(curve))
    assert curve[-1] > curve[0] + 0.15
    assert curve[1] > found["compact from scratch, 24 trials"]  # what others share is worth something


def test_shuffled_labels_teach_nothing(run: Run) -> None:
    of, calibrated = newcomer(run)
    rows = of.first(72)
    target_N = of.targets(rows)
    rng = np.random.default_rng(3)
    before, right = correct(of, calibrated), correct(of, adapt(of, calibrated, rows, target_N))
    shuffled = correct(of, adapt(of, calibrated, rows, rng.permutation(target_N)))
    assert right > before + 0.1
    assert shuffled < before + 0.03


def test_what_was_learned_is_kept_and_found_again(run: Run, scores: list[dict[str, Any]]) -> None:
    files = sorted(run.folder.glob("checkpoints/*_04_*"))
    assert len(files) == 2 * len(SIZES)
    written = [file.stat().st_mtime_ns for file in files]
    assert evaluate(run.folder, quiet, quiet) == scores
    assert [file.stat().st_mtime_ns for file in files] == written
    of, calibrated = newcomer(run)
    rows = of.first(24)
    again = adapt(of, calibrated, rows, of.targets(rows))  # as if the file had been lost
    kept = load_person(run.checkpoint("fold0_refit_04_24_trials"))
    assert again.steps == kept.steps
    assert all(torch.equal(again.rows[0][name].cpu(), value) for name, value in kept.rows[0].items())
    assert (run.folder / "figures/adaptation.png").stat().st_size > 10_000


def test_nothing_of_the_test_part_is_met(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[int] = set()
    original = Epochs.read

    def spy(self: Epochs, rows: NDArray[np.int64], shift: NDArray[np.int64] | None = None) -> torch.Tensor:
        read.update(rows.tolist())
        return original(self, rows, shift)

    monkeypatch.setattr(Epochs, "read", spy)
    of, calibrated = newcomer(run)
    rows = of.first(24)
    adapt(of, calibrated, rows, of.targets(rows))
    trials = of.setting.sources.of["eeg"].trials
    test = trials.iloc[of.trained.rows(0, TEST)["eeg"]]
    assert set(trials["person"].iloc[sorted(read)]) == {"04"}
    assert not set(trials["concept"].iloc[sorted(read)]) & set(test["concept"])
    assert set(of.first(24)) <= set(of.first(96))  # a curve of more and more
    per_class = np.bincount(of.targets(rows))
    assert per_class.max() - per_class.min() <= 1
    fold_N = of.folds(of.first(96))
    by_concept = pd.Series(fold_N).groupby(trials["concept"].to_numpy(dtype=str)[of.first(96)]).nunique()
    assert by_concept.max() == 1
    split = np.full(len(trials), "", dtype="<U10")
    a, b = np.flatnonzero(trials["concept"] == trials["concept"].iloc[rows[0]])[:2]
    split[a], split[b] = ADAPT, TEST
    with pytest.raises(SplitError, match=r"leak: concept \w+ is in the adapt and in the test part"):
        check_split(trials, split, trials["store"].to_numpy(), trials["start"].to_numpy(), WINDOW, zero_shot=True)


def test_own_scaling_looks_at_no_label(run: Run) -> None:
    of, calibrated = newcomer(run)
    epochs = of.setting.sources.of["eeg"].epochs
    view, target_N = of.setting.recipe.view, of.setting.task.of["eeg"].target_N
    concept = epochs.trials["concept"].copy()
    epochs.trials["concept"] = concept.sample(frac=1, random_state=0).to_numpy()
    again = fit_scalers(epochs, of.unlabelled, target_N[::-1].copy(), view, "own", 0, labelled=False)
    seen = fit_scalers(epochs, of.unlabelled, target_N, view, "own", 0)
    epochs.trials["concept"] = concept
    for key, scaler in calibrated.scalers.items():
        assert np.array_equal(scaler.matrix_CC, again[key].matrix_CC)
        assert not np.array_equal(scaler.matrix_CC, seen[key].matrix_CC)


@pytest.mark.parametrize("name", list(DECODERS))
def test_only_the_new_person_moves(name: str) -> None:
    torch.manual_seed(0)
    more = {"components": 6, "width": 6, "layers": 1} if name == "brain_module" else {}
    decoder = DECODERS[name](Shape(6, 50, 3, 2, 100.0), **more)
    x_BCT, person_B, target_B = torch.randn(30, 6, 50), torch.arange(30) % 2, torch.arange(30) % 3
    decoder.fit_statistics(x_BCT, target_B, person_B)
    if name == "compact":  # its head begins at zero
        torch.nn.init.normal_(decoder.get_parameter("head"), std=0.1)
    add_person(decoder.eval())
    with torch.no_grad():
        before, new = decoder(x_BCT, person_B), decoder(x_BCT, torch.full((30,), 2))
    learn_person_only(decoder)
    optimizer = torch.optim.Adam([p for p in decoder.parameters() if p.requires_grad], lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(decoder(x_BCT, torch.full((30,), 2)), target_B))
        optimizer.step()
    with torch.no_grad():
        assert torch.equal(decoder(x_BCT, person_B), before)
        moved = decoder(x_BCT, torch.full((30,), 2))
        assert not torch.allclose(moved, new)
        row = person_row(decoder)
        set_person(decoder, {tensor: torch.zeros_like(value) for tensor, value in row.items()})
        set_person(decoder, row)
        assert torch.equal(decoder(x_BCT, torch.full((30,), 2)), moved)
    with pytest.raises(RunError, match="a person's weights are of another decoder"):
        set_person(decoder, {})


def test_a_run_meets_a_person_who_was_recorded_later(
    people: Path, run: Run, scores: list[dict[str, Any]], tmp_path: Path
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run.folder, copied)
    first, later = (people / f"stores/mixed/sub-05/ses-{session}" for session in ("01", "02"))

    def right(folder: Path) -> tuple[float, bool]:
        (path,) = predict(copied, later, folder, quiet, quiet)
        table = pd.read_csv(path, sep="\t")
        return float((table["predicted"] == table["concept"].str[0]).mean()), bool(table["person_is_known"].all())

    before, known = right(tmp_path / "before")
    assert not known
    (path,) = adapt_run(copied, first, 150, quiet, quiet)
    assert path == copied / "people/05.safetensors"
    after, known = right(tmp_path / "after")
    assert known
    assert after > before + 0.1
    assert evaluate(copied, quiet, quiet) == scores  # the run itself is as it was
    with pytest.raises(RunError, match="sub-01 was trained, and has weights already"):
        adapt_run(copied, people / "stores/mixed/sub-01", None, quiet, quiet)
    with pytest.raises(SplitError, match="sub-05 has 560 trials, 560 of them labelled; --trials 9999 asks for more"):
        adapt_run(copied, first, 9999, quiet, quiet)
    path.write_bytes(b"pickle")
    with pytest.raises(RunError, match=r"05\.safetensors: cannot be read"):
        predict(copied, later, tmp_path, quiet, quiet)


def test_vectors_are_learned_from_a_few_trials_too(people: Path, tmp_path: Path) -> None:
    paths = [f"paths.embeddings={tmp_path}", f"paths.runs={tmp_path / 'runs'}"]
    few = ["split.adapt_trials=[96]", "target.task=retrieve", "target.table=hand", "evaluate.dynamics=true"]
    recipe = mixed_recipe(people, *paths, *few)
    shown = open_sources(recipe, torch.device("cpu"), quiet).of["eeg"].trials.drop_duplicates("image_id")
    kind = np.array([CLASSES.index(name[0]) for name in shown["concept"]])
    vector = 2 * np.eye(len(CLASSES))[kind] + 0.1 * np.random.default_rng(0).standard_normal((len(shown), len(CLASSES)))
    rows = true_rows(list(shown["image_id"]), list(shown["concept"]))
    write_embeddings(EmbeddingTable(rows, {"kind": vector.astype(np.float32)}, {"kind": "hand"}), tmp_path / "hand")
    scores = evaluate(train(recipe, "x", "test", quiet, quiet).folder, quiet, quiet)
    rank = {r["model"]: r["value"] for r in scores if r["split"] == "test" and r["metric"] == "mean_rank"}
    assert {"encoding, own scaling", "compact from scratch, 96 trials", "linear from scratch, 96 trials"} <= set(rank)
    assert rank["compact, 96 trials"] < rank["compact, own scaling"] - 0.03  # 0 is best
    assert not {r["metric"] for r in scores if r["metric"].startswith("peak_")}  # of nobody's own trials


def test_a_baseline_of_each_person_knows_no_other(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is predicted of someone unknown is the decoder's alone."""
    monkeypatch.setattr(baselines, "choices", lambda shape, **_: [baselines.Choice(1, pooled=False)])
    alone = ["split.new_people=[]", "split.adapt_trials=[]", "train.steps=2", "train.checks=1", "train.refit=false"]
    recipe = mixed_recipe(people, *alone, "data.people=01,02", f"paths.runs={tmp_path}")
    found = train(recipe, "x", "test", quiet, quiet).folder
    (path,) = predict(found, people / "stores/mixed/sub-05/ses-01", tmp_path, quiet, quiet)
    assert not pd.read_csv(path, sep="\t")["person_is_known"].any()


def test_what_cannot_be_adapted_is_one_sentence(people: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="adapt_trials are those of new_people; name some"):
        mixed_recipe(people, "split.new_people=[]")
    with pytest.raises(SplitError, match=r"split\.adapt_trials = 9999, but 04 has \d+ labelled trials that share"):
        train(mixed_recipe(people, "split.adapt_trials=[9999]"), "x", "test", quiet, quiet)
    with pytest.raises(SplitError, match="one person is trained, and a decoder of one has no weights of people's own"):
        train(mixed_recipe(people, "data.people=01,04"), "x", "test", quiet, quiet)
    alone = mixed_recipe(people, "data.people=01", "split.new_people=[]", "split.adapt_trials=[]", "train.steps=2",
                         "train.checks=1", f"paths.runs={tmp_path}")  # fmt: skip
    with pytest.raises(RunError, match="trained on one person"):
        adapt_run(train(alone, "x", "test", quiet, quiet).folder, people / "stores/mixed/sub-04", 9, quiet, quiet)

"""The combined set: every image that both modalities showed, none lost, none paired wrongly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import quiet
from synapse_diffusion.bids import read_images, read_trials
from synapse_diffusion.bids.recordings import Recording
from synapse_diffusion.config import Recipe, load_recipe
from synapse_diffusion.convert import convert_pairs
from synapse_diffusion.errors import SettingsError, StoreError
from synapse_diffusion.splits import TEST, TRAIN, VALIDATION, split_together
from synapse_diffusion.store.files import draft_store
from synapse_diffusion.store.pairs import open_pairs
from synapse_diffusion.types import SensorArray


def write_store(
    root: Path, dataset: str, modality: str, person: str, trials: pd.DataFrame, session: str = "01"
) -> None:
    """A store of one sample that holds these trials: an index never looks at signals."""
    sensors = SensorArray(("X",), (modality,), ("V",), np.zeros((1, 3)), ("good",))
    with draft_store(root / dataset / f"sub-{person}/ses-{session}/run-x-01") as draft:
        draft.signal(1, 1)
        draft.finish(200.0, sensors, trials, [], {"modality": modality, "settings_digest": "", "notes": []})


def table(person: str, images: list[str], concepts: list[str], is_test: list[int] | int = 0) -> pd.DataFrame:
    trials = pd.DataFrame({"image_id": images, "concept": concepts, "is_test": is_test, "person": person})
    trials = trials.assign(session="01", run="x-01", label="n/a", sequence=0, onset_sample=0, duration_s=0.1)
    trials = trials.assign(is_target=0, is_catch=0)
    trials["trial_id"] = [f"{person}_{k}" for k in range(len(trials))]
    trials["repeat"] = trials.groupby("image_id").cumcount()
    return trials


def recipe_for(root: Path, *overrides: str) -> Recipe:
    return load_recipe("comb_fruit_furniture", [f"paths.stores={root}", *overrides])


def test_pairs_counts_and_people(tmp_path: Path) -> None:
    write_store(tmp_path, "ds003825", "eeg", "01", table("01", list("aabcx"), ["A", "A", "A", "C", "X"]))
    write_store(tmp_path, "ds003825", "eeg", "02", table("02", list("abt"), ["A", "A", "T"], [0, 0, 1]))
    write_store(
        tmp_path, "ds004212", "meg", "M1", table("M1", [*"abtty", "n/a"], [*"AATTY", "n/a"], [0, 0, 1, 1, 0, 0])
    )
    said: list[str] = []
    paired = convert_pairs(recipe_for(tmp_path), said.append)
    assert paired.pairs.to_numpy().tolist() == [["a", "A", 0, 3, 1], ["b", "A", 0, 2, 1], ["t", "T", 1, 1, 2]]
    assert sorted(paired.unpaired["image_id"]) == ["c", "x", "y"]
    assert paired.counts["pairs"] == {"main": 2, "test": 1}
    assert "3 images pair (2 main, 1 test): 6 EEG and 4 MEG trials of different people" in said[0]
    assert "2 images of ds003825 (2 trials) have no MEG partner" in said[1]
    assert "1 images of ds004212 (1 trials) have no EEG partner" in said[2]
    trials = paired.trials
    assert len(trials) == 10
    for _, trial in trials.iterrows():
        assert paired.pairs["image_id"].iloc[trial["pair"]] == trial["image_id"]
        stored = pd.read_csv(Path(trial["store"]) / "trials.tsv", sep="\t", dtype=str).iloc[trial["row"]]
        assert stored["trial_id"] == trial["trial_id"]
    of_a = trials[(trials["image_id"] == "a") & (trials["modality"] == "eeg")]
    assert of_a[["person", "repeat"]].to_numpy().tolist() == [["01", 0], ["01", 1], ["02", 0]]

    by_concept = convert_pairs(recipe_for(tmp_path, "pairs.by=concept", "data.name=c"), quiet)
    assert by_concept.pairs.to_numpy().tolist() == [["n/a", "A", 0, 5, 2], ["n/a", "T", 1, 1, 2]]

    before = {path.name: path.read_bytes() for path in paired.folder.iterdir()}
    convert_pairs(recipe_for(tmp_path), quiet)
    assert before == {path.name: path.read_bytes() for path in paired.folder.iterdir()}
    write_store(tmp_path, "ds003825", "eeg", "01", table("01", ["a"], ["A"]))
    with pytest.raises(StoreError, match=r"sub-01/ses-01/run-x-01: was converted anew since .*convert comb` again"):
        open_pairs(paired.folder, tmp_path)


def test_sets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path, "ds003825", "eeg", "01", table("01", list("ab"), ["A", "B"]))
    with pytest.raises(StoreError, match="ds004212: no signal store"):
        convert_pairs(recipe_for(tmp_path), quiet)
    for trials, message in (
        (table("M1", list("ab"), ["A", "C"]), "disagree on image b: concept is B in EEG and C in MEG"),
        (table("M1", list("ab"), ["A", "B"], [0, 1]), "disagree on image b: is_test is 0 in EEG and 1 in MEG"),
        (table("M1", list("xy"), ["A", "B"]), "no image is in both"),
    ):
        write_store(tmp_path, "ds004212", "meg", "M1", trials)
        with pytest.raises(StoreError, match=message):
            convert_pairs(recipe_for(tmp_path), quiet)
    write_store(tmp_path, "other", "eeg", "01", table("01", list("ab"), ["A", "B"]))
    with pytest.raises(StoreError, match=r"is no MEG \(pairs.meg = 'other'\)"):
        convert_pairs(recipe_for(tmp_path, "pairs.meg=other"), quiet)
    with pytest.raises(SettingsError, match=r"name the two data sets under paths.stores, and a third"):
        convert_pairs(recipe_for(tmp_path, "data.name=ds003825"), quiet)
    assert not (tmp_path / "things").exists()


def test_an_index_replaces_nothing_but_an_index(tmp_path: Path) -> None:
    write_store(tmp_path, "ds003825", "eeg", "01", table("01", ["a"], ["A"]))
    write_store(tmp_path, "ds004212", "meg", "M1", table("M1", ["a"], ["A"]))
    write_store(tmp_path, "precious", "eeg", "01", table("01", ["a"], ["A"]))
    kept = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match=r"precious: holds something else than a pairs index; choose another"):
        convert_pairs(recipe_for(tmp_path, "data.name=precious"), quiet)
    for name in ("..", ".", "a/b", ""):
        with pytest.raises(SettingsError, match="give one plain folder name"):
            recipe_for(tmp_path, f"data.name='{name}'")
    assert sorted(tmp_path.rglob("*")) == kept


def test_real_tables_pair_image_by_image(real: Path, tmp_path: Path) -> None:
    images = read_images(real / "things")
    eeg = load_recipe("eeg_fruit_furniture").data.events
    folder = real / "bids/ds003825-1.2.0/sub-02/eeg"
    recording = Recording("02", "01", "rsvp", "rsvp-01", folder / "x_eeg.vhdr", folder / "sub-02_task-rsvp_events.tsv")
    found = read_trials(recording, eeg, 3_300_000, 1000.0, quiet)
    assert found.counts["targets"] == 336
    write_store(tmp_path, "ds003825", "eeg", "02", found.trials)
    meg = load_recipe("meg_fruit_furniture").data.events
    n_trials = 0
    for session in ("01", "11"):
        folder = real / f"bids/ds004212-3.0.0/sub-BIGMEG1/ses-{session}/meg"
        tables = []
        for path in sorted(folder.glob("sub*_events.tsv")):
            recording = Recording("BIGMEG1", session, "main", "main-01", folder / "x_meg.ds", path, "meg")
            tables.append(read_trials(recording, meg, 417_600, 1200.0, quiet, images).trials)
        n_trials += sum(len(found) for found in tables)
        write_store(tmp_path, "ds004212", "meg", "BIGMEG1", pd.concat(tables), session)
    assert n_trials == 4108
    paired = convert_pairs(recipe_for(tmp_path), quiet)
    assert paired.counts["pairs"] == {"main": 3708, "test": 200}
    assert paired.counts["unpaired"] == {"eeg": 22_248 - 3708, "meg": 0}
    assert paired.counts["trials"] == {"eeg": 3708 + 12 * 200, "meg": 4108}


def test_full_size_tables(real: Path, tmp_path: Path) -> None:
    images = pd.read_csv(real / "things/things_images.csv")
    within = images.groupby("uniqueID").cumcount()
    test = pd.read_csv(real / "things/meg_test_200.csv")["image_nr"]
    main = images[within < 12]
    shown = pd.concat([main, *[images.iloc[test - 1]] * 12])
    stem = list(shown["file_name"].str.removesuffix(".jpg"))
    is_test = [0] * len(main) + [1] * 2400
    assert len(main) == 22_248
    for modality, dataset, person in (("eeg", "ds003825", "02"), ("meg", "ds004212", "BIGMEG1")):
        write_store(tmp_path, dataset, modality, person, table(person, stem, list(shown["uniqueID"]), is_test))
    paired = convert_pairs(recipe_for(tmp_path), quiet)
    assert paired.counts["pairs"] == {"main": 22_248, "test": 200}
    assert paired.unpaired.empty

    # one split for both: a concept trains, validates or tests in EEG and MEG alike
    labels = pd.factorize(paired.trials["concept"])[0] % 3
    parts = {}
    sides = [paired.trials["modality"] == m for m in ("eeg", "meg")]
    sequence = np.arange(len(paired.trials)) % 40
    trials = paired.trials.assign(is_catch=0, sequence=sequence)
    splits = split_together(
        [trials[side] for side in sides], [labels[side] for side in sides], dataset_test=True,
        concept_shares=(0.15, 0.15), sequence_shares=(0.2, 0.2), rng=np.random.default_rng(0),
    )  # fmt: skip
    for part in (TRAIN, VALIDATION, TEST):
        concepts = [set(trials.loc[side, "concept"][split == part]) for side, split in zip(sides, splits, strict=True)]
        assert concepts[0] == concepts[1]
        parts[part] = concepts[0]
    assert len(parts[TEST]) == 200
    assert not parts[TRAIN] & (parts[VALIDATION] | parts[TEST])

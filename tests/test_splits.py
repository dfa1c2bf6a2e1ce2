"""No image, concept or sample of signal on two sides; planted leaks are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import quiet, small
from synapse_diffusion.errors import SplitError
from synapse_diffusion.splits import (
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    check_split,
    drop_touching,
    natural_order,
    refit_rows,
    split_blocks,
    split_concepts,
    split_people,
)
from synapse_diffusion.training.parts import make_folds
from synapse_diffusion.training.sources import open_sources
from synapse_diffusion.training.tasks import make_task

N_TIMES = 100


def make(
    n_concepts: int, n_images: int, n_sequences: int, seed: int
) -> tuple[pd.DataFrame, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Two people see every image once, in sequences at 10 Hz (25 samples), then three concepts' test images."""
    rng = np.random.default_rng(seed)
    tables = []
    for person in ("01", "02"):
        images = [(c, f"c{c}_{k}") for c in range(n_concepts) for k in range(n_images)]
        shown = [images[k] for k in rng.permutation(len(images))]
        sequence = np.sort(np.arange(len(shown)) % n_sequences)
        test = [(c, f"c{c}_test") for c in range(3) for _ in range(4)]
        table = pd.DataFrame([*shown, *test], columns=["number", "image_id"])
        table["sequence"] = [*sequence, *[n_sequences] * len(test)]
        table["is_test"] = [*[0] * len(shown), *[1] * len(test)]
        table["start"] = np.arange(len(table)) * 25 + table["sequence"] * 500
        tables.append(table.assign(person=person, session="01", run="a-01", is_catch=0, store=int(person) - 1))
    trials = pd.concat(tables, ignore_index=True)
    trials["concept"] = "c" + trials["number"].astype(str)
    trials["onset_sample"] = trials["start"]
    trials["trial_id"] = [f"t{k}" for k in range(len(trials))]
    label = (trials["number"] % 2).to_numpy(dtype=np.int64)
    return trials, label, trials["store"].to_numpy(copy=True), trials["start"].to_numpy(copy=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(12, 30), st.integers(8, 14), st.integers(8, 20), st.booleans(), st.integers(0, 99))
def test_concept_splits_never_leak(n_concepts: int, n_images: int, n_seq: int, dataset: bool, seed: int) -> None:
    trials, label, store, start = make(n_concepts, n_images, n_seq, seed)
    try:
        split = split_concepts(
            trials, label, dataset_test=dataset, concept_shares=(0.2, 0.2), sequence_shares=(0.25, 0.25),
            rng=np.random.default_rng(seed),
        )  # fmt: skip
    except SplitError:
        return  # too few trials came together: said, not hidden
    split = drop_touching(split, store, start, N_TIMES)
    check_split(trials, split, store, start, N_TIMES, zero_shot=True)
    assert not dataset or np.all(trials["is_test"][split == TEST] == 1)
    rows = refit_rows(trials, label, split, store, start, N_TIMES, zero_shot=True)
    again = np.where(np.isin(np.arange(len(split)), rows), TRAIN, np.where(split == TEST, TEST, UNUSED))
    check_split(trials, again, store, start, N_TIMES, zero_shot=True)
    assert set(np.flatnonzero(split == TRAIN)) <= set(rows)


@pytest.mark.parametrize("leak", ["image", "concept", "window"])
def test_planted_leaks_are_refused(leak: str) -> None:
    trials, label, store, start = make(20, 10, 10, 0)
    split = split_concepts(
        trials, label, dataset_test=False, concept_shares=(0.2, 0.2), sequence_shares=(0.2, 0.2),
        rng=np.random.default_rng(0),
    )  # fmt: skip
    split = drop_touching(split, store, start, N_TIMES)
    train, test = np.flatnonzero(split == TRAIN)[0], np.flatnonzero(split == TEST)[0]
    if leak == "image":
        trials.loc[train, "image_id"] = trials.loc[test, "image_id"]
    elif leak == "concept":
        trials.loc[train, "concept"] = trials.loc[test, "concept"]
    else:
        store[train], start[train] = store[test], start[test] + N_TIMES - 1
    with pytest.raises(SplitError, match=f"leak: .*{leak}"):
        check_split(trials, split, store, start, N_TIMES, zero_shot=True)


def test_blocks_are_contiguous_and_tested_once() -> None:
    trials, label, store, start = make(20, 10, 10, 0)
    splits = split_blocks(trials, label, unit="block", folds=5)
    assert len(splits) == 5
    tested = np.stack([split == TEST for split in splits])
    assert np.all(tested.sum(0) == 1)
    for split in splits:
        for person in ("01", "02"):
            mine = (trials["person"] == person).to_numpy()
            assert np.all(np.diff(np.flatnonzero(mine & (split == TEST))) == 1)
        cleaned = drop_touching(split, store, start, N_TIMES)
        check_split(trials.assign(image_id="n/a"), cleaned, store, start, N_TIMES, zero_shot=False)
    apart = split_people(trials, label, splits)
    assert len(apart) == 10
    assert all(len(set(trials["person"][split != UNUSED])) == 1 for split in apart)


def test_runs_follow_each_other_by_number() -> None:
    """BIDS asks for no zeros before the numbers of runs."""
    trials, label, *_ = make(20, 10, 10, 0)
    mine = trials["person"] == "01"
    trials, label = trials[mine].reset_index(drop=True), label[mine]
    trials["run"] = [f"x-{k}" for k in np.arange(len(trials)) * 12 // len(trials) + 1]
    for fold, split in enumerate(split_blocks(trials, label, unit="run", folds=6)):
        assert set(trials["run"][split == TEST]) == {f"x-{2 * fold + 1}", f"x-{2 * fold + 2}"}
    assert natural_order(trials["run"]).tolist() == [int(run[2:]) - 1 for run in trials["run"]]


def test_an_empty_part_is_said() -> None:
    trials, label, _, _ = make(12, 8, 8, 0)
    with pytest.raises(SplitError, match="no trial is marked as a test image"):
        split_concepts(
            trials.assign(is_test=0), label, dataset_test=True, concept_shares=(0.2, 0.2), sequence_shares=(0.2, 0.2),
            rng=np.random.default_rng(0),
        )  # fmt: skip
    with pytest.raises(SplitError, match="no trial has a class"):
        split_blocks(trials, np.full(len(trials), -1), unit="block", folds=5)
    one_concept = np.where(trials["concept"] == trials["concept"][0], 1, 0)
    with pytest.raises(SplitError, match="furniture has 1 concepts outside the test images"):
        split_concepts(
            trials.assign(is_test=0), one_concept, dataset_test=False, concept_shares=(0.2, 0.2),
            sequence_shares=(0.2, 0.2), rng=np.random.default_rng(0), names=("fruit", "furniture"),
        )  # fmt: skip
    last = np.where(np.arange(len(trials)) == len(trials) - 1, 1, 0)
    with pytest.raises(SplitError, match="the validation part has no trial of furniture; larger shares"):
        split_blocks(
            trials[trials["person"] == "02"],
            last[trials["person"] == "02"],
            unit="block",
            folds=3,
            names=("fruit", "furniture"),
        )
    two_runs = trials.assign(run=(np.arange(len(trials)) % 2).astype(str))
    with pytest.raises(SplitError, match="2 runs; cross-validation needs three"):
        split_blocks(two_runs, label, unit="run", folds=5)


@pytest.mark.parametrize("shares", [(0.0, 0.25), (0.25, 0.0)])
def test_a_part_without_sequences_of_its_own_is_wherever_its_concepts_were(shares: tuple[float, float]) -> None:
    trials, label, _, _ = make(20, 8, 10, 0)
    split = split_concepts(
        trials, label, dataset_test=False, concept_shares=(0.2, 0.2), sequence_shares=shares,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    free, bound = (VALIDATION, TEST) if not shares[0] else (TEST, VALIDATION)
    shown = trials["is_test"] == 0
    for concept in trials.loc[(split == free) & shown, "concept"].unique():
        assert set(split[(trials["concept"] == concept) & shown]) == {free}
    in_bound = set(map(tuple, trials.loc[split == bound, ["person", "sequence"]].to_numpy()))
    assert not in_bound & set(map(tuple, trials.loc[split == TRAIN, ["person", "sequence"]].to_numpy()))


def test_windows_that_reach_past_most_recordings_are_said(study: Path) -> None:
    recipe = small(study, "view.start_s=70", "view.stop_s=70.5")
    sources = open_sources(recipe, torch.device("cpu"), quiet)
    usable = sources.of["eeg"].trials["usable"]
    lost = f"{(~usable).sum()} of {len(usable)} trials"
    assert 0 < usable.sum() < len(usable) / 2
    with pytest.raises(SplitError, match=rf"; {lost} have no window of 70 to 70\.5 s \(view\.\*\) inside"):
        make_folds(sources, make_task(recipe, sources), recipe, quiet)


def test_validation_differs_from_test() -> None:
    trials, label, *_ = make(20, 10, 10, 0)
    for split in split_blocks(trials, label, unit="block", folds=3):
        assert np.any(split == VALIDATION)


def test_a_recording_that_the_data_set_holds_twice_is_used_once(study: Path, tmp_path: Path) -> None:
    """As in NeuroTechX's N170 recordings, where the second run of person 03's sessions 1 and 2 is one file."""
    shutil.copytree(study / "stores/small", tmp_path / "small")
    shutil.copytree(tmp_path / "small/sub-01/ses-01", tmp_path / "small/sub-01/ses-02")
    recipe = small(study, f"paths.stores={tmp_path}")
    sources = open_sources(recipe, torch.device("cpu"), quiet)
    said: list[str] = []
    [fold] = make_folds(sources, make_task(recipe, sources), recipe, said.append)
    store_N = sources.of["eeg"].trials["store"].to_numpy()
    assert (fold["eeg"][store_N == 1] == UNUSED).all()
    assert (fold["eeg"][store_N == 0] != UNUSED).any()
    assert said[0].startswith("sub-01/ses-02/run-rsvp-01: the same signal as sub-01/ses-01/run-rsvp-01, bit for bit")
    assert said[1].startswith("1440 trials: 0 touch")

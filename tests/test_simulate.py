"""The simulated study: reproducible, in the real form, true to its own truth; observers that are ideal."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mne
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import linalg
from scipy.spatial.distance import cdist

from conftest import quiet, small
from synapse_diffusion.bids import read_concepts
from synapse_diffusion.bids.truth import PersonTruth, read_truth
from synapse_diffusion.config import Recipe
from synapse_diffusion.convert import convert
from synapse_diffusion.errors import DataError, SettingsError
from synapse_diffusion.evaluate import observer_epochs, person_observer
from synapse_diffusion.metrics import NoiseModel, Observer
from synapse_diffusion.metrics.observers import FLOOR, NEIGHBOURS
from synapse_diffusion.signal.scaling import fit_scaler
from synapse_diffusion.simulate import network, simulate
from synapse_diffusion.simulate.modality import MODALITIES
from synapse_diffusion.simulate.noise import _beat_power, _beats, _spectrum, frequencies
from synapse_diffusion.simulate.pictures import CATEGORIES, draw_picture
from synapse_diffusion.simulate.sensors import helmet
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.training.data import open_epochs, open_stores

SLOW = (
    "data.modality=meg", "simulate.people=1", "simulate.channels=40", "simulate.sessions=2", "simulate.runs=2",
    "simulate.onset_distance_s=0.8", "simulate.onset_jitter_s=0.1", "simulate.duration_s=0.5", "simulate.mains_hz=60.0",
    "simulate.catch_share=0.09",
)  # fmt: skip


def small_meg(folder: Path, *overrides: str) -> Recipe:
    """The small study's pictures shown one by one to a person in a thinned helmet."""
    return small(folder, *SLOW, *overrides)


@pytest.fixture(scope="module")
def meg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(small_meg(tmp_path_factory.mktemp("meg")), quiet, quiet)


@pytest.fixture(scope="module")
def events(meg: Path) -> pd.DataFrame:
    """All event tables, with the picture that `value` names."""
    images = pd.read_csv(meg / "things_images.csv").set_index("image_nr")
    tables = []
    for path in sorted(meg.rglob("*_events.tsv")):
        table = pd.read_csv(path, sep="\t", dtype={"value": str, "things_category_nr": str}, keep_default_na=False)
        tables.append(table.assign(path=str(path), session=path.parts[-3], run=path.name[-13:-11]))
    table = pd.concat(tables, ignore_index=True)
    shown = table["trial_type"] != "catch"
    rows = images.loc[table.loc[shown, "value"].astype(float).astype(int)]
    table.loc[shown, "image_id"] = [name.removesuffix(".jpg") for name in rows["file_name"]]
    table.loc[shown, ["concept", "concept_nr"]] = rows[["uniqueID", "concept_nr"]].to_numpy()
    return table


@pytest.fixture(scope="module")
def raws(meg: Path, events: pd.DataFrame) -> dict[str, Any]:
    return {
        path: mne.io.read_raw_fif(path.replace("_events.tsv", "_meg.fif"), preload=True, verbose="error")
        for path in events["path"].unique()
    }


@pytest.fixture(scope="module")
def cut(raws: dict[str, Any], events: pd.DataFrame) -> NDArray[np.float32]:
    """Epochs (N, C, T) of all pictures from 0 to 0.5 s, 0.1 - 30 Hz, at 100 Hz."""
    parts = []
    for path, raw in raws.items():
        x_CT = raw.copy().pick("mag").filter(0.1, 30.0, verbose="error").get_data()[:, ::2]
        start = np.rint(events.loc[events["path"] == path, "sample"].to_numpy() / 2).astype(int)
        parts.append(np.stack([x_CT[:, s : s + 50] for s in start]))
    return np.concatenate(parts).astype(np.float32)


def truth_of(root: Path, person: str) -> PersonTruth:
    truth = read_truth(root, person)
    assert truth is not None
    return truth


def test_same_seed_same_bytes(study: Path, tmp_path: Path) -> None:
    simulate(small(tmp_path), quiet, quiet)
    for path in sorted((study / "bids").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "bids" / path.relative_to(study / "bids")).read_bytes(), path
    with pytest.raises(DataError, match="holds another study"):
        simulate(small(tmp_path, "simulate.seed=1"), quiet, quiet)


def test_events_have_the_real_columns(study: Path, real: Path) -> None:
    ours = pd.read_csv(study / "bids/sub-01/eeg/sub-01_task-rsvp_events.tsv", sep="\t")
    theirs = pd.read_csv(real / "bids/ds003825-1.2.0/sub-02/eeg/sub-02_task-rsvp_events.tsv", sep="\t", nrows=5)
    assert list(ours.columns) == list(theirs.columns)


def test_pictures_differ_to_the_eye() -> None:
    drawn = [
        draw_picture(concept, k, 0, 48).astype(float) for c in list(CATEGORIES)[:4] for concept in CATEGORIES[c]
        for k in range(3)
    ]  # fmt: skip
    flat = np.stack([picture.ravel() for picture in drawn])
    distance = np.abs(flat[:, None] - flat[None]).mean(-1)[~np.eye(len(flat), dtype=bool)]
    assert distance.min() > 8  # of 255, mean over pixels and colours


def test_truth_is_what_was_recorded(study: Path) -> None:
    recipe = small(study)
    epochs = open_epochs(open_stores(recipe, quiet), recipe, "cpu")
    truth = read_truth(study / "bids", "01")
    assert truth is not None
    rows = np.flatnonzero(epochs.trials["person"] == "01")
    responses = np.stack([truth.response(image, epochs.times) for image in epochs.trials["image_id"].iloc[rows]])
    responses -= responses.mean(1, keepdims=True)
    responses -= responses.mean(0)
    x = epochs.read(rows).numpy() - epochs.read(rows).numpy().mean(0)
    # trial-by-trial latency smears the mean response, most at its late stage
    assert 0.75 < (responses * x).sum() / (responses**2).sum() < 1.05


def test_identification_observer_is_far_above_chance_and_calibrated(study: Path) -> None:
    recipe = small(study)
    epochs = open_epochs(open_stores(recipe, quiet), recipe, "cpu")
    truth = read_truth(study / "bids", "01")
    assert truth is not None
    observer, width = person_observer(truth, epochs, recipe)
    trials = epochs.trials
    rows = np.flatnonzero((trials["person"] == "01") & (trials["is_test"] == 1))
    images = sorted(set(trials["image_id"].iloc[rows]))
    candidates = np.array([truth.images.index(image) for image in images])
    log_p = observer.identify(observer_epochs(epochs, [np.array([row]) for row in rows], width), candidates)
    true = trials["image_id"].iloc[rows].map(images.index).to_numpy()
    p = np.exp(log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True))
    accuracy = np.mean(p.argmax(1) == true)
    assert accuracy > 3 / len(images)
    assert p.max(1).mean() == pytest.approx(accuracy, abs=0.15)  # as sure as it is right


def test_eeg_and_meg_show_the_same_pictures_to_other_people(study: Path, meg: Path) -> None:
    eeg = study / "bids"
    for name in ("stimuli", "things_images.csv", "things_concepts.tsv", "category_mat_manual.tsv"):
        files = [path for path in sorted((eeg / name).rglob("*")) if path.is_file()] or [eeg / name]
        assert all(path.read_bytes() == (meg / path.relative_to(eeg)).read_bytes() for path in files)
    assert len(list((eeg / "stimuli").rglob("*.jpg"))) == len(list((meg / "stimuli").rglob("*.jpg")))
    one, other = truth_of(eeg, "01"), truth_of(meg, "M01")
    assert one.images == other.images
    assert not np.isclose(one.latency_S, other.latency_S).any()
    # the same late sources drive both: what is alike for one is alike for the other
    alike = [np.corrcoef(truth.pattern_SNC[2])[np.triu_indices(len(one.images), 1)] for truth in (one, other)]
    assert np.corrcoef(*alike)[0, 1] > 0.3


def test_same_seed_same_bytes_of_meg(tmp_path: Path) -> None:
    short = ("simulate.exemplars=2", "simulate.main_repeats=1", "simulate.test_repeats=2")
    one, other = (simulate(small_meg(tmp_path / name, *short), quiet, quiet) for name in "ab")
    assert len(list(one.rglob("*_meg.fif"))) == 4
    for path in sorted(one.rglob("*")):
        assert path.is_dir() or path.read_bytes() == (other / path.relative_to(one)).read_bytes(), path


def test_meg_tables_have_the_real_form(meg: Path, events: pd.DataFrame, real: Path) -> None:
    theirs = real / "bids/ds004212-3.0.0/sub-BIGMEG1/ses-01/meg"
    for kind in ("events", "channels"):
        ours = next(meg.rglob(f"*_{kind}.tsv"))
        header = next(theirs.glob(f"sub*run-01_{kind}.tsv")).read_text().splitlines()[0]
        assert ours.read_text().splitlines()[0] == header
    row = pd.read_csv(next(theirs.glob("sub*run-01_events.tsv")), sep="\t", dtype=str, keep_default_na=False)
    for column in ("things_category_nr", "value"):
        assert set(row.loc[row["trial_type"] == "catch", column]) == {"N/A"}
        assert row.loc[row["trial_type"] != "catch", column].str.fullmatch(r"\d+\.0").all()
        assert (events.loc[events["trial_type"] == "catch", column] == "N/A").all()
        assert events.loc[events["trial_type"] != "catch", column].str.fullmatch(r"\d+\.0").all()


def test_meg_trials_are_dealt_as_in_the_real_study(meg: Path, events: pd.DataFrame) -> None:
    concepts = read_concepts(meg).concepts
    shown = events[events["trial_type"] != "catch"]
    assert [concepts[int(float(k)) - 1] for k in shown["things_category_nr"]] == list(shown["concept"])
    assert (shown["concept_nr"] == shown["things_category_nr"].astype(float)).all()
    images = pd.read_csv(meg / "things_images.csv")
    assert list(images["image_nr"]) == list(range(1, len(images) + 1))
    assert images[["uniqueID", "file_name"]].apply(tuple, axis=1).is_monotonic_increasing
    main, test = (shown[shown["trial_type"] == kind] for kind in ("exp", "test"))
    assert set(main["image_id"].value_counts()) == {2}
    assert set(test.groupby(["session", "image_id"]).size()) == {2}
    assert len(main["image_id"].unique()) + len(test["image_id"].unique()) == len(images)
    for _, run in events.groupby(["session", "run"]):
        assert run["trial_type"].value_counts(normalize=True)["catch"] == pytest.approx(0.09, abs=0.01)
        kinds = run["trial_type"].to_numpy()
        assert np.ptp(np.flatnonzero(kinds == "test")) > 0.7 * len(kinds)  # spread, not at the end
        distance = np.diff(run["onset"])
        assert 0.69 < distance.min() < 0.72
        assert 0.88 < distance.max() < 0.91
        assert np.allclose(run["onset"], run["sample"] / 200.0, rtol=0, atol=1e-12)


def test_meg_truth_is_what_was_recorded(meg: Path, events: pd.DataFrame, cut: NDArray[np.float32]) -> None:
    truth = truth_of(meg, "M01")
    rows = np.flatnonzero(events["trial_type"] != "catch")
    times = np.arange(50) / 100
    responses = np.stack([truth.response(image, times) for image in events["image_id"].iloc[rows]])
    responses -= responses.mean(0)
    x = cut[rows] - cut[rows].mean(0)
    assert 0.8 < (responses * x).sum() / (responses**2).sum() < 1.02
    shuffled = np.random.default_rng(0).permutation(rows.size)
    assert abs((responses[shuffled] * x).sum() / (responses**2).sum()) < 0.2


def test_meg_identification_observer_is_calibrated(meg: Path, events: pd.DataFrame, cut: NDArray[np.float32]) -> None:
    truth = truth_of(meg, "M01")
    look = SimpleNamespace(
        sfreq=100.0, n_times=50, times=np.arange(50) / 100, channels=truth.sensors,
        read=lambda rows: torch.from_numpy(cut[rows]),
    )  # fmt: skip
    epochs = cast("Epochs", look)
    observer, width = person_observer(truth, epochs, small_meg(meg))
    rows = np.flatnonzero(events["trial_type"] == "test")
    images = sorted(set(events["image_id"].iloc[rows]))
    candidates = np.array([truth.images.index(image) for image in images])
    log_p = observer.identify(observer_epochs(epochs, [np.array([row]) for row in rows], width), candidates)
    p = np.exp(log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True))
    accuracy = np.mean(p.argmax(1) == events["image_id"].iloc[rows].map(images.index).to_numpy())
    assert accuracy > 3 / len(images)
    assert p.max(1).mean() == pytest.approx(accuracy, abs=0.15)


def test_blinks_and_beats_reach_sensors_and_body_channels(meg: Path, raws: dict[str, Any]) -> None:
    truth = truth_of(meg, "M01")
    raw = next(iter(raws.values())).copy().filter(1.0, 40.0, picks=["mag", "eog", "ecg"], verbose="error")
    x_CT = raw.get_data("mag")
    head = mne.transforms.apply_trans(
        raw.info["dev_head_t"], [channel["loc"][:3] for channel in raw.info["chs"][: len(x_CT)]]
    )
    right, front, back = head[:, 0] > 0, head[:, 1] > 0.03, head[:, 1] < -0.02
    for channel, component, least in (("EOG001", 2, 0.5), ("ECG001", 3, 0.4)):
        by_truth = np.sqrt(np.diag(truth.noise_MCC[component])) * np.sign(truth.noise_MCC[component][0])
        found = x_CT @ raw.get_data(channel)[0]
        assert abs(np.corrcoef(found, by_truth)[0, 1]) > 0.95
        assert max(abs(np.corrcoef(row, raw.get_data(channel)[0])[0, 1]) for row in x_CT) > least
    blink = np.diag(truth.noise_MCC[2])
    assert blink[front].mean() > 10 * blink[back].mean()
    assert blink.argmax() in np.flatnonzero(np.array([name[2] == "F" for name in truth.sensors]))
    sign = np.sign(truth.noise_MCC[2][blink.argmax()])
    strong = blink > 0.05 * blink.max()
    assert len(set(sign[strong & right])) == len(set(sign[strong & ~right])) == 1  # out on one side, in on the other
    assert sign[strong & right][0] != sign[strong & ~right][0]


def test_evoked_fields_are_of_the_right_size_and_over_the_back(
    meg: Path, events: pd.DataFrame, cut: NDArray[np.float32]
) -> None:
    evoked = cut.mean(0) - cut.mean(0)[:, :5].mean(1, keepdims=True)
    lobe = np.array([name[2] for name in truth_of(meg, "M01").sensors])
    early = np.abs(evoked[:, 8:13]).max(1)
    assert 50e-15 < early.max() < 500e-15
    assert early[np.isin(lobe, ["O", "P"])].mean() > 2 * early[lobe == "F"].mean()


@pytest.mark.parametrize("n", [40, 272])
def test_helmet_is_even_open_at_the_face_and_around_the_head(n: int) -> None:
    sensors = helmet(n, np.random.default_rng(0))
    info = sensors.info
    assert len(set(sensors.names)) == n
    assert {channel["coil_type"] for channel in info["chs"]} == {mne.io.constants.FIFF.FIFFV_COIL_CTF_GRAD}
    place = np.array([channel["loc"] for channel in info["chs"]])
    frame = place[:, 3:].reshape(n, 3, 3)
    assert np.allclose(frame @ frame.transpose(0, 2, 1), np.eye(3), atol=1e-6)
    assert np.allclose(np.linalg.det(frame), 1)
    head = mne.transforms.apply_trans(info["dev_head_t"], place[:, :3])
    from_centre = np.linalg.norm(head - [0, 0, 0.04], axis=1)
    assert from_centre.min() > 0.098  # outside the head
    assert from_centre.max() < 0.135
    assert (np.einsum("ci,ci->c", place[:, :3], frame[:, 2]) > 0.1).all()  # axes point outward
    nearest = np.sort(cdist(head, head))[:, 1]
    assert nearest.min() > 0.5 * nearest.mean()
    assert head[head[:, 1] > 0.08, 2].min() > 0.02
    assert head[head[:, 1] < 0, 2].min() < 0.01


def test_spectrum_of_beats_is_that_of_beats() -> None:
    t = np.arange(0, 3000, 0.005)
    beats = _beats(t, 0.9, np.random.default_rng(0))
    assert beats.max() == pytest.approx(1.0, abs=0.1)
    f = frequencies(200.0)
    power = _beat_power(f, 0.9)
    spectrum = np.abs(np.fft.rfft(beats)) ** 2 * 2 * 0.005 / len(t)
    at = np.fft.rfftfreq(len(t), 0.005)
    for low, high in ((0.1, 0.8), (0.9, 1.3), (1.9, 2.6), (3, 10), (10, 30)):
        expected = power[(f >= low) & (f < high)].sum() * 0.05
        assert spectrum[(at >= low) & (at < high)].sum() * at[1] == pytest.approx(expected, rel=0.15), low


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("simulate.channels=200",), "simulate.channels = 200: at most 128 of EEG"),
        (("simulate.sessions=2",), "simulate.sessions = 2: only MEG studies have it"),
        ((*SLOW, "simulate.runs=900"), "simulate.sessions x simulate.runs = 1800: only 432 main trials"),
        ((*SLOW, "simulate.sfreq=60000.0", "simulate.channels=272"), "takes 7.* GiB, a FIF file holds 2"),
        (("simulate.onset_jitter_s=0.1",), "onset_jitter_s = 0.1 must be below onset_distance_s = 0.1"),
    ],
)
def test_what_cannot_be_simulated_is_said(tmp_path: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        simulate(small(tmp_path, *overrides), quiet, quiet)
    assert not list(tmp_path.iterdir())


def toy() -> tuple[Observer, NDArray[np.float64], NoiseModel, NDArray[np.float64]]:
    """Three images, two stages, four sensors, no neighbours."""
    rng = np.random.default_rng(0)
    pattern = 2.0 * rng.standard_normal((2, 3, 4))
    pattern -= pattern.mean(2, keepdims=True)
    lags = np.r_[1.0, 0.3, np.zeros(10)]
    noise = NoiseModel(np.eye(4)[None], lags[None], onset_distance_s=1e3)
    times = np.arange(12) / 50
    observer = Observer(
        pattern,
        np.array([0.06, 0.14]),
        np.array([0.02, 0.03]),
        np.array([0.01, 0.02]),
        np.array([0.2, 0.3]),
        noise,
        times,
    )
    return observer, pattern, noise, times


def test_marginal_likelihood_is_the_brute_force_integral() -> None:
    observer, pattern, noise, times = toy()
    rng = np.random.default_rng(1)
    basis = np.linalg.eigh(np.eye(4) - 0.25)[1][:, 1:]
    covariance = np.kron(
        np.eye(3), np.array([[noise.autocovariance_MT[0][abs(i - j)] for j in range(12)] for i in range(12)])
    )
    inverse = np.linalg.inv(covariance + 1e-4 * np.eye(36))
    x = 1.5 * rng.standard_normal((1, 4, 12))
    x -= x.mean(1, keepdims=True)
    flat = (basis.T @ x[0]).ravel()
    draws, log_p = 100_000, np.empty(3)
    z, g1, g2 = rng.standard_normal((3, draws))
    for image in range(3):
        mean = np.zeros((draws, 36))
        for s, (gain, latency, width, sd) in enumerate(
            [(1 + 0.2 * g1, 0.06, 0.02, 0.01), (1 + 0.3 * g2, 0.14, 0.03, 0.02)]
        ):
            kernel = gain[:, None] * np.exp(-0.5 * ((times - latency - sd * z[:, None]) / width) ** 2)
            mean += np.einsum("r,nt->nrt", basis.T @ pattern[s, image], kernel).reshape(draws, 36)
        rest = flat - mean
        value = -0.5 * np.einsum("nf,fg,ng->n", rest, inverse, rest) + 0.5 * flat @ inverse @ flat
        log_p[image] = np.logaddexp.reduce(value) - np.log(draws)
    found = observer.identify(x, np.arange(3))[0]
    assert np.allclose(found - found[0], log_p - log_p[0], atol=0.05)


def test_stimuli_from_a_folder(real: Path, tmp_path: Path) -> None:
    photos = pd.read_csv(real / "photos/labels.csv")
    chosen = photos[photos["categories"].isin(["fruit|food", "food|fruit", "furniture"])].head(12)
    folder = tmp_path / "pictures"
    folder.mkdir()
    table = chosen.rename(columns={"uniqueID": "concept", "categories": "category"})
    for file in table["file"]:
        (folder / file).symlink_to(real / "photos" / file)
    table.to_csv(folder / "concepts.tsv", sep="\t", index=False)
    root = simulate(small(tmp_path, f"paths.stimuli={folder}", "simulate.people=1"), quiet, quiet)
    events = pd.read_csv(root / "sub-01/eeg/sub-01_task-rsvp_events.tsv", sep="\t")
    assert set(events["object"]) <= {*table["concept"], "-1"}
    assert len(set(events["stimname"])) == len(table)


def test_the_folders_table_says_which_pictures_are_tests(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    table = pd.DataFrame(
        [(f"{name}{k}.png", name, "thing", int(name == "b" and k < 2)) for name in "abc" for k in range(3)],
        columns=["file", "concept", "category", "is_test"],
    )
    for k, file in enumerate(table["file"]):
        Image.new("RGB", (20, 20), (20 * k, 100, 0)).save(folder / file)
    table.to_csv(folder / "concepts.tsv", sep="\t", index=False)
    settings = (f"paths.stimuli={folder}", "simulate.people=1")
    root = simulate(small(tmp_path, *settings), quiet, quiet)
    events = pd.read_csv(root / "sub-01/eeg/sub-01_task-rsvp_events.tsv", sep="\t")
    assert set(events.loc[events["isteststim"] == 1, "stimname"]) == {"b0.png", "b1.png"}
    assert set(events.loc[events["isteststim"] == 0, "stimname"]) == set(table["file"]) - {"b0.png", "b1.png"}
    table.assign(is_test="yes").to_csv(folder / "concepts.tsv", sep="\t", index=False)
    with pytest.raises(DataError, match="is_test is 'yes' in a row; it can be 1 or 0"):
        simulate(small(tmp_path, *settings, "simulate.seed=1", f"paths.bids={tmp_path / 'other'}"), quiet, quiet)


def test_another_generator_answers_the_same_pictures_otherwise(study: Path, tmp_path: Path) -> None:
    slow = (
        "simulate.generator=network", "simulate.onset_distance_s=0.8", "simulate.people=1", "simulate.exemplars=1",
        "simulate.main_repeats=30", "view.start_s=-0.1", "convert.highpass_hz=2.0",
    )  # fmt: skip
    recipe = small(tmp_path, *slow)
    root = simulate(recipe, quiet, quiet)
    assert all(
        path.read_bytes() == (study / "bids" / path.relative_to(root)).read_bytes() for path in root.rglob("*s.jpg")
    )
    assert read_truth(root, "01") is None  # the observers do not apply
    again = simulate(small(tmp_path, *slow, f"paths.bids={tmp_path / 'again'}"), quiet, quiet)
    signal = "sub-01/eeg/sub-01_task-rsvp_eeg.eeg"
    assert (again / signal).read_bytes() == (root / signal).read_bytes()
    convert(recipe, quiet, quiet)
    epochs = open_epochs(open_stores(recipe, quiet), recipe, "cpu")
    main = epochs.trials[epochs.trials["usable"] & (epochs.trials["is_test"] == 0)]
    x_NCT = epochs.read(main.index.to_numpy()).numpy()
    evoked = x_NCT.mean(0) - x_NCT.mean(0)[:, epochs.times < 0.05].mean(1, keepdims=True)
    best = evoked[np.abs(evoked).max(1).argmax()]
    before, after = best[epochs.times < 0.05], best[epochs.times > 0.08]
    assert np.abs(after).max() > 5 * np.abs(before).max()
    assert -after.min() * after.max() > 0.1 * np.abs(after).max() ** 2  # to both sides
    scaler = fit_scaler(x_NCT, np.zeros(len(main), np.int64), "mvnn", np.random.default_rng(0))
    x = (scaler.matrix_CC @ (x_NCT - x_NCT.mean(0)))[:, :, epochs.times > 0.08].reshape(len(main), -1)
    rows_of = main.groupby("image_id").indices.values()
    one, other = (np.stack([x[rows[half::2]].mean(0) for rows in rows_of]) for half in (0, 1))
    alike = one @ other.T
    off = alike[~np.eye(len(alike), dtype=bool)]
    assert alike.diagonal().mean() > off.mean() + 4 * off.std() / np.sqrt(len(alike))  # a picture's own response


def test_responses_of_the_network_differ_between_pictures_and_repeat() -> None:
    see = network.RandomNetwork(0)
    first, second = (draw_picture("cat", k, 0, 64) for k in (0, 1))
    assert [part.shape for part in see(first)] == [(54,), (48,)]
    assert all(np.array_equal(a, b) for a, b in zip(see(first), network.RandomNetwork(0)(first), strict=True))
    assert not np.allclose(see(first)[1], see(second)[1], atol=0.05)
    larger = draw_picture("cat", 0, 0, 128)
    assert np.asarray(np.corrcoef(see(first)[0], see(larger)[0]))[0, 1] > 0.9
    times = np.arange(700) / 1000
    course_ST = network.course(times, network.LATENCY_S)
    assert np.allclose(times[course_ST.argmax(1)], network.LATENCY_S + network.RISE_S, atol=0.012)
    assert (course_ST[:, times < 0.06] == 0).all()
    assert np.abs(course_ST[:, -1]).max() < 0.05
    assert (course_ST.min(1) < -0.05).all()  # they swing back
    delay_NS, gain_NS = network.draw(20_000, np.random.default_rng(0))
    assert (gain_NS > 0).all()
    assert np.log(gain_NS).std(0) == pytest.approx(network.GAIN_SD * np.sqrt(2), rel=0.03)
    assert (
        np.mean(np.prod(delay_NS[:, :2] / delay_NS[:, :2].std(0), axis=1)) > 0.4
    )  # all stages of a trial come early or late
    power = _spectrum(np.array([9.0, 10.0, 17.0, 20.0, 40.0]), network.coloured(MODALITIES["eeg"].levels))
    assert power[3] > 2 * power[2]
    assert power[0] > power[1] > 2 * power[4]


def test_a_tree_of_concepts_has_its_categories_as_branches() -> None:
    concepts = [f"{category}{k}" for category in "abcdef" for k in range(12)]
    categories = [name[0] for name in concepts]
    late = network.late_features(categories, concepts, concepts, np.random.default_rng(0))
    alike = np.asarray(np.corrcoef(late))
    same = np.equal.outer(np.array(categories), np.array(categories))
    off = ~np.eye(len(concepts), dtype=bool)
    assert alike[same & off].mean() > 0.2 > abs(alike[~same].mean()) + 0.05
    assert np.abs(late).max() <= 1


def test_noise_of_an_observer_is_a_sum_of_kronecker_products() -> None:
    """Of brain and sensors, of neighbours' responses, and of their gains: over sensors times over time."""
    observer, _, alone, _ = toy()
    noise = NoiseModel(alone.spatial_MCC, alone.autocovariance_MT, onset_distance_s=0.1)
    pattern, basis = observer.pattern_SNR, observer._basis_CR
    n_stages, n_images, _ = pattern.shape
    n_times = len(observer._times)
    spatial = basis.T @ noise.spatial_MCC @ basis
    terms = zip(spatial, noise.autocovariance_MT, strict=True)
    total = np.sum([np.kron(s, linalg.toeplitz(a[:n_times])) for s, a in terms], axis=0)
    total += FLOOR * np.diag(total).mean() * np.eye(len(total))
    centred = pattern - pattern.mean(1, keepdims=True)
    for m in [m for m in range(-NEIGHBOURS, NEIGHBOURS + 1) if m]:
        k_ST = observer._smeared(m * noise.onset_distance_s)
        for s in range(n_stages):
            for z in range(n_stages):
                total += np.kron(centred[s].T @ centred[z] / n_images, np.outer(k_ST[s], k_ST[z]))
            gains = observer._gain_sd[s] ** 2 * pattern[s].T @ pattern[s] / n_images
            total += np.kron(gains, np.outer(k_ST[s], k_ST[s]))
    found = observer._noise(noise)
    assert np.abs(found - total).max() < 1e-10 * np.abs(total).max()

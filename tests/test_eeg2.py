"""THINGS-EEG2's numpy files: labels, onsets, the signal that MNE reads, epochs, and pickles that are refused."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from conftest import noise, quiet, write_events, write_recording
from synapse_diffusion.bids.pickled import read_dict
from synapse_diffusion.cli import app
from synapse_diffusion.config import Recipe, load_recipe, parse_recipe
from synapse_diffusion.convert import convert
from synapse_diffusion.errors import DataError, SettingsError, StoreError
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import open_store, read_manifest
from synapse_diffusion.train import train

NAMES = ["Pz", "O1", "Oz", "O2", "PO7"]
SFREQ = 1000
TRAIN = ["apple", "banana", "bench", "bowl", "chair", "desk", "grape", "lemon", "sofa", "table"]  # concepts, in order
TEST = ["bed", "cherry", "kiwi", "stool"]
FRUIT = {"apple", "banana", "grape", "lemon", "cherry", "kiwi"}
TARGET = 99999


def codes_of(part: str, session: int) -> list[list[int]]:
    """Sequences of image numbers, with targets here and there."""
    rng = np.random.default_rng([session, len(part)])
    n, repeats = (2 * len(TRAIN), 3) if part == "training" else (len(TEST), 4)
    codes = np.concatenate([rng.permutation(n) + 1 for _ in range(repeats)])
    sequences = [list(map(int, chunk)) for chunk in np.array_split(codes, len(codes) // 8)]
    sequences[0].insert(3, TARGET)
    return sequences


def write_raw(folder: Path, part: str, session: int) -> tuple[NDArray[np.float64], list[int], list[int], list[int]]:
    """The authors' dict; returns (C, T) in V, and each event's sample, code and sequence."""
    sequences = codes_of(part, session)
    code = [number for one in sequences for number in one]
    sequence = [k for k, one in enumerate(sequences) for _ in one]
    sample = [1201 + 200 * k + 1500 * number for k, number in enumerate(sequence)]
    at = sample[-1] + 1700
    signal_CT = noise(at, len(NAMES), seed=session).T.astype(np.float64) * 1e-6
    stim = np.zeros((1, at))
    stim[0, sample] = code
    folder = folder / f"sub-01/ses-{session:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "raw_eeg_data": np.append(signal_CT, stim, 0), "ch_names": [*NAMES, "stim"],
        "ch_types": ["eeg"] * len(NAMES) + ["stim"], "sfreq": SFREQ, "highpass": 0.01, "lowpass": 100,
    }  # fmt: skip
    np.save(folder / f"raw_eeg_{part}.npy", np.array(found, dtype=object))
    return signal_CT, sample, code, sequence


def images() -> dict[str, list[str]]:
    """The authors' metadata: concepts numbered within the part, and in THINGS."""
    numbered = [f"{k + 1:05d}_{name}" for k, name in enumerate(TRAIN) for _ in range(2)]
    return {
        "train_img_concepts": numbered,
        "train_img_concepts_THINGS": numbered,
        "train_img_files": [f"{name}_{letter}.jpg" for name in TRAIN for letter in ("01b", "02s")],
        "test_img_concepts": [f"{k + 1:05d}_{name}" for k, name in enumerate(TEST)],
        "test_img_concepts_THINGS": [f"{k + 90:05d}_{name}" for k, name in enumerate(TEST)],
        "test_img_files": [f"{name}_14n.jpg" for name in TEST],
    }


def write_epochs(folder: Path, part: str, names: list[str] = NAMES) -> NDArray[np.float64]:
    """(images, repetitions, C, T) from -0.2 to 0.79 s at 100 Hz, in standard deviations."""
    shape = (2 * len(TRAIN), 4) if part == "training" else (len(TEST), 8)
    data = np.random.default_rng(len(part)).standard_normal((*shape, len(names), 100))
    (folder / "sub-01").mkdir(parents=True, exist_ok=True)
    found = {"preprocessed_eeg_data": data, "ch_names": names, "times": np.arange(-20, 80) / 100}
    np.save(folder / f"sub-01/preprocessed_eeg_{part}.npy", np.array(found, dtype=object))
    return data


@pytest.fixture(scope="module")
def eeg2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """raw/, epochs/, things/ and image_metadata.npy."""
    folder = tmp_path_factory.mktemp("eeg2")
    for session in (1, 2):
        for part in ("training", "test"):
            write_raw(folder / "raw", part, session)
    for part in ("training", "test"):
        write_epochs(folder / "epochs", part)
    np.save(folder / "image_metadata.npy", np.array(images(), dtype=object))
    (folder / "things").mkdir()
    (folder / "things/things_concepts.tsv").write_text("uniqueID\n" + "\n".join([*TRAIN, *TEST]) + "\n")
    rows = "".join(f"{int(name in FRUIT)}\t{int(name not in FRUIT)}\n" for name in [*TRAIN, *TEST])
    (folder / "things/category_mat_manual.tsv").write_text("fruit\tfurniture\n" + rows)
    convert(recipe_of(folder), quiet, quiet)
    return folder


def recipe_of(folder: Path, *overrides: str) -> Recipe:
    """The shipped recipe on these files."""
    settings = [
        f"paths.bids={folder}", f"paths.things={folder / 'things'}", f"paths.stores={folder / 'stores'}",
        f"paths.runs={folder / 'runs'}", "data.folder=raw", "execution.workers=1", "split.validation_concepts=0.3",
        "train.steps=6", "train.checks=2", "evaluate.permutations=20", "evaluate.bootstrap=20",
    ]  # fmt: skip
    return load_recipe("eeg2", [*settings, *overrides])


EPOCHS = ("data.folder=epochs", "data.name=epochs", "convert.sfreq=100", "view.baseline=none")


def test_every_label_and_onset(eeg2: Path, tmp_path: Path) -> None:
    listed = images()
    for part, word in (("training", "train"), ("test", "test")):
        _, sample, code, sequence = write_raw(tmp_path, part, 2)
        store = open_store(eeg2 / f"stores/eeg2/sub-01/ses-02/run-{part}")
        shown = [k for k, number in enumerate(code) if number != TARGET]
        trials = store.trials
        files = [listed[f"{word}_img_files"][code[k] - 1] for k in shown]
        assert list(trials["image_id"]) == [name.removesuffix(".jpg") for name in files]
        assert list(trials["concept"]) == [name.rsplit("_", 1)[0] for name in files]
        assert list(trials["onset_sample"]) == [(sample[k] + 2) // 4 for k in shown]
        assert list(trials["sequence"]) == [sequence[k] for k in shown]
        assert list(trials["repeat"]) == [files[:k].count(name) for k, name in enumerate(files)]
        assert set(trials["is_test"]) == {int(part == "test")}
        assert set(trials["session"]) == {"02"}
        assert set(trials["run"]) == {part}
        counts = read_manifest(store.folder)["counts"]
        assert counts["trial_types"] == {part: len(shown), "target": 1}
        assert counts["left_out"]["catch"] == 1
        assert counts["onset_distances"] == {"median_s": 0.2, "n": len(code) - len(set(sequence)), "outside": 0}
        assert np.isfinite(store.sensors.position_C3).all()


def test_the_signal_is_that_of_the_same_brainvision_recording(eeg2: Path, tmp_path: Path) -> None:
    signal_CT, sample, code, _ = write_raw(tmp_path / "eeg2", "training", 1)

    def fill(data: NDArray[np.float32]) -> None:
        data[:] = signal_CT.T * 1e6

    folder, n = tmp_path / "bids/sub-01/eeg", signal_CT.shape[1]
    write_recording(folder, "sub-01_task-x_eeg", NAMES, n, SFREQ, fill)
    write_events(folder, "sub-01_task-x", np.array(sample) / SFREQ, [str(k) for k in code])
    filters = {"highpass_hz": 0.5, "lowpass_hz": 40.0, "sfreq": 250.0, "reference": ["average"]}
    paths = {"bids": str(tmp_path / "bids"), "stores": str(tmp_path / "stores")}
    bids = parse_recipe(
        {"paths": paths, "convert": filters, "data": {"events": {"label": "trial_type", "onset_unit": "seconds"}}}
    )
    theirs = open_store(convert(bids, quiet, quiet)[0].folder)
    said: list[str] = []
    ours_of = ("convert.highpass_hz=0.5", "convert.lowpass_hz=40.0", 'convert.reference=["average"]')
    recipe = recipe_of(
        eeg2, *ours_of, f"paths.bids={tmp_path / 'eeg2'}", f"paths.things={eeg2}", f"paths.stores={tmp_path / 'eeg2'}",
        "data.folder=", "data.events.keep_catch=true",
    )  # fmt: skip
    ours = open_store(convert(recipe, said.append, quiet)[0].folder)
    assert ours.signal_TC.shape == theirs.signal_TC.shape
    step = np.abs(signal_CT).max() * np.finfo(np.float32).eps  # BrainVision's float32, of electrode offsets of mV
    assert np.allclose(ours.signal_TC, theirs.signal_TC, rtol=0, atol=2 * step)
    assert 2 * step < 1e-3 * np.abs(theirs.signal_TC).max()
    assert ours.sensors.names == theirs.sensors.names
    assert np.array_equal(ours.sensors.position_C3, theirs.sensors.position_C3)
    assert np.array_equal(ours.trials["onset_sample"], theirs.trials["onset_sample"])
    assert list(ours.trials["is_catch"]) == [int(number == TARGET) for number in code]  # keep_catch
    assert any("joined without a mark" in line for line in said)
    info = mne.create_info(NAMES, SFREQ, "eeg")
    raw = mne.io.RawArray(signal_CT, info).filter(0.5, 40.0).set_eeg_reference("average")
    raw.crop(tmax=(n // 4 * 4 - 1) / SFREQ)  # MNE stretches time where the ratio leaves a remainder
    mne_TC = raw.resample(250.0, method="polyphase").get_data().T
    assert np.allclose(ours.signal_TC[: len(mne_TC) - 20], mne_TC[:-20], atol=1e-3 * np.abs(mne_TC).max())


def test_epochs_are_stored_as_they_are(eeg2: Path, tmp_path: Path) -> None:
    listed = images()
    results = convert(recipe_of(eeg2, *EPOCHS), quiet, quiet)
    assert [result.folder.name for result in results] == ["run-test", "run-training"]
    for result, word in zip(results, ("test", "train"), strict=True):
        part = result.recording.run
        data = write_epochs(tmp_path, part)
        store, n_repeats = open_store(result.folder), data.shape[1]
        epochs = Epochs([store], -0.2, 0.8)
        assert epochs.trials["usable"].all()
        x_NCT = epochs.read(np.arange(len(epochs.trials))).numpy()
        assert np.array_equal(x_NCT, data.reshape(-1, *data.shape[2:]).astype(np.float32))
        names = np.repeat([name.removesuffix(".jpg") for name in listed[f"{word}_img_files"]], n_repeats)
        assert list(store.trials["image_id"]) == list(names)
        assert list(store.trials["repeat"]) == list(range(n_repeats)) * (len(names) // n_repeats)
        assert set(store.trials["session"]) == {"all"}
        assert set(store.trials["is_test"]) == {int(part == "test")}
        assert set(store.sensors.units) == {"n/a"}
        assert not Epochs([store], -0.2, 0.81).trials["usable"].any()  # no window reaches the next epoch
    assert all(result.skipped for result in convert(recipe_of(eeg2, *EPOCHS), quiet, quiet))


def test_files_of_nices_code(eeg2: Path, tmp_path: Path) -> None:
    """A bare pickle, 250 samples from the onset on, and the times before it too."""
    person = tmp_path / "sub-01"
    person.mkdir()
    data = np.random.default_rng(0).standard_normal((len(TEST), 3, len(NAMES), 250))
    found = {"preprocessed_eeg_data": data, "ch_names": NAMES, "times": np.arange(-50, 250) / 250}
    with (person / "preprocessed_eeg_test.npy").open("wb") as file:
        pickle.dump(found, file, protocol=4)
    recipe = recipe_of(eeg2, f"paths.bids={tmp_path}", f"paths.things={eeg2}", f"paths.stores={tmp_path}", *EPOCHS)
    recipe = parse_recipe(recipe.model_dump(), ["data.folder=", "convert.sfreq=250", "convert.drop_channels=O2"])
    (result,) = convert(recipe, quiet, quiet)
    store = open_store(result.folder)
    kept = [k for k, name in enumerate(NAMES) if name != "O2"]
    x_NCT = Epochs([store], 0.0, 1.0).read(np.arange(12)).numpy()
    assert np.array_equal(x_NCT, data.reshape(12, len(NAMES), 250)[:, kept].astype(np.float32))
    assert list(store.trials["onset_sample"]) == list(range(0, 3000, 250))
    assert "300 times for 250 samples: those before the onset were cut off" in result.notes


@pytest.mark.parametrize("overrides", [(), EPOCHS], ids=["raw", "epochs"])
def test_info_and_training_need_nothing_else(eeg2: Path, overrides: tuple[str, ...]) -> None:
    recipe = recipe_of(eeg2, *overrides)
    convert(recipe, quiet, quiet)
    run = train(recipe, "eeg2", "test", quiet, quiet)
    rows = evaluate(run.folder, quiet, quiet)
    assert {row["split"] for row in rows} == {"validation", "test"}
    told = CliRunner().invoke(app, ["info", str(eeg2 / f"stores/{recipe.data.name}")])
    assert told.exit_code == 0, told.output
    assert "4 test" in told.output
    assert f"{len(NAMES)} eeg ({'n/a' if overrides else 'V'})" in told.output


def test_what_is_finished_is_kept_and_what_was_killed_is_made_again(eeg2: Path, tmp_path: Path) -> None:
    recipe = recipe_of(eeg2, f"paths.stores={tmp_path}", "data.sessions=01", "data.runs=test")
    (first,) = convert(recipe, quiet, quiet)
    digest = open_store(first.folder).digest
    left = first.folder.with_name(".run-test.unfinished")  # what a killed conversion leaves
    first.folder.rename(left)
    (left / "manifest.json").unlink()
    (again,) = convert(recipe, quiet, quiet)
    assert not again.skipped
    assert not left.exists()
    assert open_store(again.folder).digest == digest
    assert convert(recipe, quiet, quiet)[0].skipped
    with pytest.raises(StoreError, match="other settings"):
        convert(parse_recipe(recipe.model_dump(), ["convert.lowpass_hz=30.0"]), quiet, quiet)


def test_a_restored_reference_is_fz(eeg2: Path, tmp_path: Path) -> None:
    few = ("data.sessions=01", "data.runs=test", "convert.restore_reference=true", f"paths.stores={tmp_path}")
    store = open_store(convert(recipe_of(eeg2, *few), quiet, quiet)[0].folder)
    assert store.sensors.names == (*NAMES, "Fz")
    assert store.sensors.status[-1] == "reference"


class Malicious:
    """Unpickled by pickle itself, this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_pickle_that_runs_something_is_refused(tmp_path: Path, protocol: int, bare: bool) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "raw_eeg_test.npy"
    found = {"raw_eeg_data": np.zeros((2, 3)), "ch_names": ["Oz", Malicious(trap)]}
    with path.open("wb") as file:
        if not bare:
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(found if bare else np.array(found, dtype=object), file, protocol=protocol)
    with pytest.raises(DataError, match=rf"{path}: it asks to run (posix|nt)\.mkdir, .* refused; do not open it"):
        read_dict(path, ())
    assert not trap.exists()


@pytest.mark.parametrize("name", ["builtins\neval", "numpy\nload", "numpy\nfromfile", "numpy\nmemmap", "os\nsystem"])
def test_names_that_numpys_arrays_do_not_need(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x80\x03c" + name.encode() + b"\nX\x01\x00\x00\x001\x85R.")
    with pytest.raises(DataError, match=f"run {name.replace(chr(10), '[.]')},"):
        read_dict(path, ())


def test_no_state_for_what_is_no_array(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x80\x03cnumpy\ndtype\n}X\x05\x00\x00\x00buildNs}\x86b.")  # setattr on the class itself
    with pytest.raises(DataError, match="a state for what is no array"):
        read_dict(path, ())


def test_lists_within_lists_take_no_longer_than_the_file(tmp_path: Path) -> None:
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested, nested]
    (tmp_path / "x.npy").write_bytes(pickle.dumps({"a": nested}, protocol=4))
    assert len(read_dict(tmp_path / "x.npy", ())["a"]) == 2
    nested[0].append(nested)
    (tmp_path / "x.npy").write_bytes(pickle.dumps({"a": nested}, protocol=4))
    with pytest.raises(DataError, match="RecursionError"):
        read_dict(tmp_path / "x.npy", ())


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_stay_in_the_file(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.npy"
    found: dict[str, Any] = {
        "large": np.random.default_rng(0).standard_normal((64, 3000)), "fortran": np.asfortranarray(np.eye(400)),
        "small": np.arange(5, dtype=">i2"), "text": np.array(["O1", "Oz"]), "objects": np.array(["a", "b"], object),
        "number": np.float64(2.5), "none": None, "list": [1, 2.5, "x", (True, False)], "flag": np.array([True]),
    }  # fmt: skip
    with path.open("wb") as file:
        pickle.dump(found, file, protocol=protocol)
    ours = read_dict(path, tuple(found))
    for key in ("large", "fortran", "small", "text", "objects", "number", "flag"):
        assert np.array_equal(ours[key], found[key]), key
    assert ours["list"] == [1, 2.5, "x", [True, False]]
    if protocol > 2:
        assert isinstance(ours["large"], np.memmap)
        assert isinstance(ours["fortran"], np.memmap)
        assert not ours["large"].flags.writeable


def spoil(folder: Path, change: Callable[[dict[str, Any]], None], name: str = "raw_eeg_test") -> Recipe:
    """One session's test part with its dict changed."""
    if name.startswith("raw"):
        write_raw(folder, "test", 1)
        path = folder / f"sub-01/ses-01/{name}.npy"
    else:
        write_epochs(folder, "test")
        path = folder / f"sub-01/{name}.npy"
    found = np.load(path, allow_pickle=True).item()
    change(found)
    np.save(path, found)
    np.save(folder / "image_metadata.npy", np.array(images(), dtype=object))
    many = EPOCHS if name.startswith("pre") else ()
    return recipe_of(folder, *many, "data.folder=")


def set_code(value: float) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found["raw_eeg_data"][-1, 1201] = value

    return change


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda found: found.pop(key)


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda found: found.update({key: value})


EPOCH_FILE = "preprocessed_eeg_test"


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("raw_eeg_test", set_code(5), r"sample 1201: code 5 is neither an image of .*metadata\.npy \(1\.\.4\) nor"),
        ("raw_eeg_test", set_code(1.5), r"code 1\.5 is neither"),
        ("raw_eeg_test", set_code(-1), r"code -1 is neither"),
        ("raw_eeg_test", without("sfreq"), r"raw_eeg_test\.npy: its dict has no sfreq; it has raw_eeg_data, ch_names"),
        ("raw_eeg_test", put("sfreq", "fast"), "sfreq is 'fast', no rate in Hz"),
        ("raw_eeg_test", put("ch_names", ["Oz"]), "raw_eeg_data has 6 channels, ch_names 1, ch_types 6"),
        ("raw_eeg_test", put("ch_types", ["eeg"] * 6), "0 channels of type stim"),
        ("raw_eeg_test", put("raw_eeg_data", np.zeros(6)), "no array of channels x samples"),
        ("raw_eeg_test", put("raw_eeg_data", np.zeros((6, 900))), "its stim channel holds no image number"),
        (EPOCH_FILE, put("ch_names", ["Oz"]), r"is 4 x 8 x 5 x 100, but ch_names has 1, not 5"),
        (EPOCH_FILE, put("times", np.arange(90) / 100), "but times has 90, not 100"),
        (EPOCH_FILE, put("times", np.arange(100) ** 2.0), "its times do not grow by equal steps"),
        (EPOCH_FILE, put("times", np.arange(1, 101) / 100), r"\(0\.01\.\.1 s\) do not hold the onset at 0 s"),
        (EPOCH_FILE, put("preprocessed_eeg_data", np.zeros((3, 8, 5, 100))), r"metadata\.npy \(test\) has 4, not 3"),
    ],
)  # fmt: skip
def test_wrong_files_end_in_one_sentence(
    tmp_path: Path, name: str, change: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        convert(spoil(tmp_path, change, name), quiet, quiet)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_folders_end_in_one_sentence(eeg2: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no THINGS-EEG2 file in it .*; set paths\.bids and data\.folder"):
        convert(recipe_of(eeg2, "data.folder=things"), quiet, quiet)
    with pytest.raises(DataError, match=r"nowhere: no such folder; set paths\.bids"):
        convert(recipe_of(eeg2, "data.folder=nowhere"), quiet, quiet)
    with pytest.raises(DataError, match=r"holds raw recordings \(raw/sub-01.* and epochs .* by data\.folder"):
        convert(recipe_of(eeg2, "data.folder="), quiet, quiet)
    with pytest.raises(DataError, match=r"image_metadata\.npy: not there, nor in .*paths\.things"):
        convert(recipe_of(eeg2, f"paths.bids={eeg2 / 'raw'}", "data.folder="), quiet, quiet)
    with pytest.raises(DataError, match=r"data\.people names 02; there are 01"):
        convert(recipe_of(eeg2, "data.people=02"), quiet, quiet)
    with pytest.raises(DataError, match=r"epochs at 100 Hz are stored as they are; set convert\.sfreq = 100"):
        convert(recipe_of(eeg2, *EPOCHS, "convert.sfreq=250", f"paths.stores={tmp_path}"), quiet, quiet)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x80\x04", b"no pickle at all", b"\x80\x03}."])
def test_other_files_and_cut_ones(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: "):
        read_dict(path, ("sfreq",))


def test_a_file_cut_short_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array({"raw_eeg_data": np.ones((64, 4000)), "sfreq": 1000}, dtype=object))
    whole = path.read_bytes()
    for size in (100, 200, 5000, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="damaged, cut short"):
            read_dict(path, ("sfreq",))


def test_the_format_is_a_setting(eeg2: Path) -> None:
    with pytest.raises(DataError, match="no EEG recording"):
        convert(recipe_of(eeg2, "data.format=bids"), quiet, quiet)
    with pytest.raises(SettingsError, match=r"has no event tables: leave out events\.image, events\.is_test"):
        parse_recipe({"data": {"format": "eeg2", "events": {"image": "stim", "is_test": "test"}}})
    with pytest.raises(SettingsError, match="format = 'eeg2' is EEG, but modality = 'meg'"):
        parse_recipe({"data": {"format": "eeg2", "modality": "meg"}})

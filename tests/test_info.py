"""What `info` says of each kind of folder, and the picture that it draws."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import quiet, small, write_store
from synapse_diffusion.errors import DataError, MissingError, SettingsError, StoreError
from synapse_diffusion.figures import sensors as figures
from synapse_diffusion.figures.sensors import Evoked
from synapse_diffusion.info import Info, info, settings_for
from synapse_diffusion.info import evoked as evoked_module
from synapse_diffusion.runs import Run
from synapse_diffusion.store.files import open_store, read_table
from synapse_diffusion.types import Segment


def look(path: Path, *overrides: str, plot: Path | None = None) -> Info:
    return info(path, settings_for(None, overrides), plot, quiet, quiet)


def rows_of(found: Info, title: str) -> dict[str, tuple[str, ...]]:
    """Rows of the table whose title begins so, by their first cell."""
    table = next(table for table in found.tables if table.title.startswith(title))
    assert all(len(row) == len(table.columns) for row in table.rows)
    return {row[0]: row[1:] for row in table.rows}


def test_stores(study: Path) -> None:
    found = look(study / "stores")
    trials = [open_store(study / f"stores/small/sub-{who}/ses-01/run-rsvp-01").trials for who in ("01", "02")]
    n_test, n_target = (int(sum(t[key].sum() for t in trials)) for key in ("is_test", "is_target"))
    assert found.kind == "signal stores"
    assert found.facts["people"] == "2"
    assert found.facts["trials"] == f"960: {960 - n_test} main, {n_test} test; {n_target} targets"
    n_main = trials[0].loc[trials[0]["is_test"] == 0, "image_id"].nunique()
    assert found.facts["images"].startswith(f"{n_main} main, each shown 2 times a person; ")
    assert found.facts["images"].endswith("each shown 4 times a person")
    assert found.facts["rate"] == "100 Hz"
    assert found.facts["channels"] == "16 eeg (V)"
    assert found.facts["filter"] == "0.1 .. 30 Hz, reference average"
    assert found.facts["usable"] == "100.0 % of trials from -0.1 to 0.8 s around onset"
    assert rows_of(found, "people")["02"][:6] == ("1", "1", "480", "100.0 %", "16", "0")
    assert found.health == ()
    one = look(study / "stores/small/sub-02/ses-01/run-rsvp-01")
    assert (one.kind, one.facts["people"], one.facts["data set"]) == ("signal store", "1", "small")


def test_categories_of_a_recipe(study: Path) -> None:
    found = info(study / "stores", small(study), None, quiet, quiet)
    categories = rows_of(found, "categories of the recipe")
    assert list(categories) == ["animal", "fruit", "vehicle"]
    assert sum(int(row[2].replace(",", "")) for row in categories.values()) == 96


def test_what_is_wrong_with_stores_is_said(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "stores/small", tmp_path / "small")
    folder = tmp_path / "small/sub-01/ses-01/run-rsvp-01"
    (folder / "signal.npy").write_bytes((folder / "signal.npy").read_bytes()[:-400])
    (tmp_path / "small/sub-02/ses-01/run-rsvp-01/trials.tsv").unlink()
    bad = tmp_path / "small/sub-03/ses-01/run-x-01"
    write_store(bad, kinds={"eeg": 9}, bad=("EEG002",), segments=(Segment(1000, 1100, "dropout"),), known=False)
    found = look(tmp_path, plot=tmp_path / "out.png")
    said = "\n".join(found.health)
    assert found.facts["recordings"] == "1 of 3, the others cannot be read"
    assert "signal.npy: cut short" in said
    assert "trials.tsv: missing" in said
    assert "sub-03/ses-01/run-x-01: bad channels: EEG002" in said
    assert "1 dropout segments, 1.0 s of 60 s" in said
    assert "of 60 trials touch a bad stretch or an end" in said
    assert "9 of 9 sensors have no known position" in said
    assert rows_of(found, "classes (column label)") == {"a": ("30", "-", "0", "-"), "b": ("30", "-", "0", "-")}
    (bad / "manifest.json").write_text("{")
    assert "manifest.json: missing or damaged" in "\n".join(look(tmp_path).health)
    with pytest.raises(StoreError, match="no trial is usable"):
        look(tmp_path, plot=tmp_path / "none.png")


def test_a_run(trained: Run, study: Path, tmp_path: Path) -> None:
    found = look(trained.folder)
    assert found.kind == "run"
    assert found.facts["recipe"] == "small"
    assert found.facts["classes"] == "3: animal, fruit, vehicle"
    splits = read_table(trained.folder / "splits.tsv")
    fruit = splits[splits["class"] == "1"]
    row = rows_of(found, "categories per split")["fruit"]
    for k, part in enumerate(("train", "validation", "test")):
        mine = fruit[fruit["split"] == part]
        assert row[2 * k : 2 * k + 2] == (str(len(mine)), str(mine["concept"].nunique()))
    copy = tmp_path / "small-copy"
    shutil.copytree(trained.folder, copy)
    score = {"split": "test", "person": "all", "model": "compact", "metric": "balanced_accuracy", "k_repeats": 1}
    values = {"value": 0.5, "low": 0.4, "high": 0.6, "chance": 1 / 3, "p": 0.01, "n": 96}
    (copy / "scores.json").write_text(json.dumps({"rows": [{**score, **values}]}))
    scored = look(copy)
    assert rows_of(scored, "scores") == {"test": ("compact", "1", "0.500", "0.400..0.600", "0.333", "0.0100", "96")}
    assert scored.health == ()
    (copy / "splits.tsv").unlink()
    (copy / "scores.json").unlink()
    provenance = json.loads((copy / "provenance.json").read_text())
    name = next(iter(provenance["stores"]))
    provenance["stores"] = {name: "0" * 64, "small/sub-09/ses-01/run-rsvp-01": "0" * 64}
    (copy / "provenance.json").write_text(json.dumps(provenance))
    said = "\n".join(look(copy).health)
    assert "its content has changed since" in said
    assert "sub-09/ses-01/run-rsvp-01/manifest.json: missing" in said
    assert "splits.tsv: missing or damaged" in said
    assert "not scored yet: synapse-diffusion evaluate" in said


def test_a_pairs_index(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    folder.mkdir()
    (tmp_path / "small").symlink_to(study / "stores/small")
    (folder / "pairs.tsv").write_text(
        "image_id\tconcept\tis_test\tn_eeg\tn_meg\na_1\ta\t0\t2\t1\na_2\ta\t0\t2\t0\nb_1\tb\t0\t4\t1\nb_9\tb\t1\t24\t12\n"
    )
    store = study / "stores/small/sub-01/ses-01/run-rsvp-01"
    sides = {
        "eeg": {"dataset": "small", "stores": {"sub-01/ses-01/run-rsvp-01": open_store(store).digest}},
        "meg": {"dataset": "other", "stores": {"sub-A/ses-01/run-x-01": "0" * 64, "sub-A/ses-02/run-x-01": "0" * 64}},
    }
    (folder / "manifest.json").write_text(json.dumps({"format": "synapse-diffusion pairs", "version": 1, **sides}))
    found = look(folder)
    assert found.kind == "pairs index"
    assert found.facts["eeg"] == "data set small: 1 people, 1 recordings, 32 trials"
    assert found.facts["meg"] == "data set other: 1 people, 2 recordings, 14 trials"
    images = rows_of(found, "images")
    assert images["main"] == ("3", "2", "2", "6", "2", "2..4", "1")
    assert images["test"] == ("1", "1", "1", "24", "12", "24", "12")
    assert len(found.health) == 2
    assert all("sub-A" in line and "missing" in line for line in found.health)
    (folder / "pairs.tsv").write_text("image_id\n")
    with pytest.raises(DataError, match="not a whole pairs index"):
        look(folder)


def test_a_bids_data_set(study: Path, tmp_path: Path) -> None:
    found = look(study / "bids")
    assert found.kind == "BIDS data set"
    assert (found.facts["recordings"], found.facts["rate"], found.facts["channels"]) == ("2", "200 Hz", "16 eeg")
    assert found.facts["event tables"] == "2, 960 rows"
    assert found.facts["derivatives"] == "truth"
    assert rows_of(found, "people")["01"][:6] == ("1", "1", "480", "200 Hz", "16", "0")
    assert found.health == ()
    shutil.copytree(study / "bids", tmp_path / "bids")
    (tmp_path / "bids/participants.tsv").write_text("participant_id\texclude\nsub-01\t1\nsub-02\t0\nsub-03\t0\n")
    (tmp_path / "bids/sub-01/eeg/sub-01_task-rsvp_events.tsv").unlink()
    data = tmp_path / "bids/sub-02/eeg/sub-02_task-rsvp_eeg.eeg"
    data.write_bytes(data.read_bytes()[:-3])
    (tmp_path / "bids/dataset_description.json").write_text("[")
    said = "\n".join(look(tmp_path / "bids").health)
    for part in (
        "no event table (sub-01_task-rsvp_events.tsv)", "truncated", "people without a recording here: 03",
        "excluded by participants.tsv, left out of convert: 01", "missing or no JSON",
    ):  # fmt: skip
        assert part in said
    shutil.rmtree(tmp_path / "bids/sub-01")
    for path in (tmp_path / "bids/sub-02/eeg").glob("*_eeg.*"):
        path.unlink()
    assert "holds event tables but no recordings" in look(tmp_path / "bids").health[1]


def test_real_recordings(real: Path) -> None:
    found = look(real / "bids/muse-n170")
    assert (found.facts["recordings"], found.facts["event tables"]) == ("12", "12, 2,165 rows")
    assert rows_of(found, "people")["03"][:5] == ("3", "6", "991", "256 Hz", "4")
    assert found.health == ()


def test_the_command_prints_it(study: Path, tmp_path: Path) -> None:
    code = "from synapse_diffusion.cli import main; main()"
    arguments = ["info", "stores", "--plot", str(tmp_path / "a.png")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=study, capture_output=True, text=True, check=True
    )
    assert "signal stores: stores" in done.stdout
    assert "960:" in done.stdout
    assert "health: nothing wrong found" in done.stdout
    assert (tmp_path / "a.png").exists()


def test_wrong_inputs(study: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        look(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no signal store .* run .* pairs index .* BIDS data set"):
        look(tmp_path)
    with pytest.raises(SettingsError, match="holds no signal store; give a store"):
        look(study / "bids", plot=tmp_path / "a.png")
    with pytest.raises(SettingsError, match=r"pictures are PNG; name it .*a\.png"):
        look(study / "stores", plot=tmp_path / "a.pdf")
    (tmp_path / "file").touch()
    with pytest.raises(MissingError, match="cannot be written"):
        look(study / "stores", plot=tmp_path / "file/a.png")


def test_the_evoked_response_is_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mixed/sub-01/ses-01/run-main-01"
    write_store(folder, kinds={"mag": 40, "grad": 80, "eeg": 30}, bad=("MAG003",))
    drawn: list[Evoked] = []

    def keep(panels: list[Evoked], title: str, path: Path) -> None:
        drawn.extend(panels)
        figures.draw_evoked(panels, title, path)

    monkeypatch.setattr(evoked_module, "draw_evoked", keep)
    look(folder, plot=tmp_path / "out.png")
    assert [panel.unit for panel in drawn] == ["T", "T/m", "V"]
    assert [len(panel.mean_CT) for panel in drawn] == [39, 80, 30]
    assert drawn[0].caption == "sub-01: mean of 59 trials, 39 mag sensors, bad and left out: MAG003"
    store = open_store(folder)
    onset = store.trials["onset_sample"].to_numpy()[:59]  # the last one's window ends after the recording
    mean_TC = np.mean([store.signal_TC[at - 10 : at + 80].astype(float) for at in onset], axis=0)
    assert np.allclose(drawn[2].mean_CT, mean_TC[:, -30:].T, rtol=1e-3, atol=1e-9)
    (peak,) = figures._peaks(drawn[2].mean_CT.std(0), drawn[2].times_s)
    assert drawn[2].times_s[peak] == pytest.approx(0.12, abs=0.011)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
    assert not list(tmp_path.glob("*.part"))


def test_two_gradiometers_of_one_place_are_one_vector() -> None:
    places = np.array([[0.0, 0.0, 0.1], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1], [0.0, 0.1, 0.0]])
    position, values = figures._places(places, np.array([[3.0], [-5.0], [4.0], [12.0]]))
    assert sorted(values[:, 0].tolist()) == [5.0, 13.0]
    assert np.allclose(position[values[:, 0].argmin()], places[0])
    rng = np.random.default_rng(0)
    direction = rng.standard_normal((50, 3))
    centre = np.array([0.01, -0.02, 0.04])
    sphere = figures._sphere(centre + 0.09 * direction / np.linalg.norm(direction, axis=1, keepdims=True))
    assert sphere == pytest.approx((*centre, 0.09))

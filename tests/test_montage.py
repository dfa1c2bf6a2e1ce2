"""A recording by other electrodes than a run's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from conftest import quiet
from synapse_diffusion.bids import standard_positions
from synapse_diffusion.bids.montage import onto
from synapse_diffusion.errors import DataError, StoreError
from synapse_diffusion.predict import predict
from synapse_diffusion.runs import Run
from synapse_diffusion.store.files import draft_store, find_stores, open_store, read_manifest
from synapse_diffusion.training.trained import open_trained, other_source
from synapse_diffusion.types import SensorArray


def test_a_smooth_potential_is_found_at_other_places() -> None:
    """Own electrodes are taken as they are, others interpolated; a place that nobody knows is said."""
    names = [name for name in standard_positions() if name[-1] in "z1234" and len(name) < 4]
    places = {name: standard_positions()[name] for name in names}
    have, want = dict(list(places.items())[::2]), dict(list(places.items())[1:])
    matrix_DC = onto(have, want)
    assert np.allclose(matrix_DC.sum(1), 1, atol=0.02)  # what all electrodes share, the others do too
    for row, name in zip(matrix_DC, want, strict=True):
        if name in have:
            assert np.array_equal(row, [other == name for other in have])

    def potential(place_C3: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1 / np.linalg.norm(place_C3 - [0.01, -0.04, 0.05], axis=1))

    true, found = potential(np.array(list(want.values()))), matrix_DC @ potential(np.array(list(have.values())))
    new = [name not in have for name in want]
    assert sum(new) > 10
    assert np.corrcoef(true[new], found[new])[0, 1] > 0.98
    with pytest.raises(DataError, match="Q1 cannot be interpolated: their positions are unknown"):
        onto(have, {**want, "Q1": np.full(3, np.nan)})
    with pytest.raises(DataError, match="cannot be interpolated from 2 electrodes"):
        onto(dict(list(have.items())[:2]), want)


def with_fewer(
    store: Path, kept: int, folder: Path, name: str = "{}", *, known: bool = True, onset: int = 0
) -> Path:  # fmt: skip
    """A copy of a store's first electrodes, of which one may not know where they were; trials may be moved."""
    old = open_store(store)
    signal_TC = old.signal_TC[:, :kept] - old.signal_TC[:, :kept].mean(1, keepdims=True)
    sensors = SensorArray(
        tuple(name.format(n) for n in old.sensors.names[:kept]), old.sensors.kinds[:kept], old.sensors.units[:kept],
        old.sensors.position_C3[:kept] * (1 if known else np.nan), old.sensors.status[:kept],
    )  # fmt: skip
    about = {name: read_manifest(store)[name] for name in ("settings_digest", "modality")} | {"notes": []}
    with draft_store(folder) as draft:
        draft.signal(*signal_TC.shape)[:] = signal_TC
        trials = old.trials.assign(onset_sample=old.trials["onset_sample"] + onset)
        draft.finish(old.sfreq, sensors, trials, old.segments, about)
    return folder


def test_a_run_decodes_a_recording_with_other_electrodes(study: Path, trained: Run, tmp_path: Path) -> None:
    store = find_stores(study / "stores", "small")[0]

    def said(folder: Path) -> tuple[NDArray[np.float64], list[str]]:
        lines: list[str] = []
        (path,) = predict(trained.folder, folder, tmp_path, lines.append, quiet)
        table = pd.read_csv(path, sep="\t")
        return table.filter(like="p(").to_numpy(), lines

    (all_NK, silent), (fewer_NK, lines), (renamed_NK, _) = (
        said(store),
        said(with_fewer(store, 13, tmp_path / "fewer/sub-09/ses-01/run-x-01")),
        said(with_fewer(store, 13, tmp_path / "renamed/sub-09/ses-01/run-x-01", "X{}")),
    )
    assert not any("spherical splines" in line for line in silent)
    assert "lacks 3 of the run's 16 sensors" in lines[0]
    for other_NK in (fewer_NK, renamed_NK):
        assert np.corrcoef(all_NK.ravel(), other_NK.ravel())[0, 1] > 0.7
    trained_run = open_trained(trained.folder, quiet)
    _, source = other_source(trained_run, tmp_path / "fewer", quiet)
    here = trained_run.setting.sources.of["eeg"].epochs
    assert source.epochs.channels == here.channels
    x_BCT = source.epochs.read(np.arange(20))
    assert x_BCT.mean(1).abs().max() < 1e-3 * x_BCT.std()  # the average reference of the run's electrodes
    nothing = with_fewer(store, 16, tmp_path / "nothing/sub-09/ses-01/run-x-01", onset=10**6)
    with pytest.raises(StoreError, match=r"none of its 480 trials has a window of 0 to 0\.5 s"):
        said(nothing)
    unknown = with_fewer(store, 13, tmp_path / "unknown/sub-09/ses-01/run-x-01", known=False)
    with pytest.raises(StoreError, match=r"from 0 electrodes of known position; train on view\.channels"):
        said(unknown)

"""Dropouts, bad channels, scaling."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from conftest import noise
from synapse_diffusion.signal.faults import ChannelStatistics, bridged, scan
from synapse_diffusion.signal.rejection import _losses, autoreject_limit, peak_to_peak
from synapse_diffusion.signal.scaling import fit_scaler, whitening
from synapse_diffusion.signal.timing import check_distances, check_trigger


def test_dropouts_are_found_and_bridged() -> None:
    x_TC = noise(200_000, 8)
    clean = x_TC.copy()
    x_TC[70_000:70_300] = 0.0
    x_TC[65_530:65_600] = np.nan  # across the border of two reads
    x_TC[150_000:150_010] = 0.0  # too short to count
    found = scan(lambda a, b: x_TC[a:b], len(x_TC), 50)
    assert [(a, b) for a, b in found.dropouts] == [(65_529, 65_600), (70_000, 70_300)]
    mended = bridged(lambda a, b: x_TC[a:b], len(x_TC), found)
    y_TC = np.concatenate([mended(a, a + 10_000) for a in range(0, 200_000, 10_000)])
    assert np.isfinite(y_TC).all()
    assert np.abs(np.diff(y_TC[69_990:70_310], axis=0)).max() < 60
    untouched = np.r_[0:65_529, 65_600:70_000, 70_300:150_000]
    assert np.array_equal(y_TC[untouched], clean[untouched])


def test_a_flat_channel_is_no_dropout() -> None:
    x_TC = noise(20_000, 8)
    x_TC[:, 2] = 7.0
    assert scan(lambda a, b: x_TC[a:b], len(x_TC), 50).dropouts == ()


def test_a_recording_that_mostly_stands_still_has_only_nan_dropouts() -> None:
    x_TC = np.zeros((20_000, 8), np.float32)
    x_TC[::100] = noise(200, 8)
    x_TC[7_000:7_200] = np.nan
    assert scan(lambda a, b: x_TC[a:b], len(x_TC), 50).dropouts == ((7_000, 7_200),)


def test_bad_channels_are_found_and_good_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    mixing = np.exp(-0.3 * np.abs(np.subtract.outer(np.arange(24), np.arange(24))))
    x_TC = (rng.standard_normal((40_000, 24)) @ mixing * 1e-5).astype(np.float32)
    x_TC[:, 3] = 0.0
    x_TC[:, 10] *= 50
    x_TC[:, 17] = rng.standard_normal(40_000) * x_TC[:, 16].std()
    statistics = ChannelStatistics(24)
    for start in range(0, 40_000, 8000):
        statistics.add(x_TC[start : start + 8000])
    assert statistics.find_bad(6.0, 0.3) == {3: "flat", 10: "noisy", 17: "uncorrelated"}


def test_whitening_gives_unit_covariance_and_drops_the_reference() -> None:
    rng = np.random.default_rng(0)
    x_NC = rng.standard_normal((50_000, 12)) @ rng.standard_normal((12, 12))
    x_NC -= x_NC.mean(1, keepdims=True)  # average reference: rank 11
    white = x_NC @ whitening(x_NC).T
    values = np.linalg.eigvalsh(np.cov(white.T))
    assert np.allclose(values[1:], 1.0, atol=0.05)
    assert values[0] < 1e-6


def test_scalers_see_units_only_by_their_own_fit() -> None:
    x_NCT = noise(64 * 50, 6).reshape(64, 50, 6).transpose(0, 2, 1)
    groups = np.arange(64) % 8
    for method in ("robust", "mvnn", "none"):
        scaled = []
        for unit in (1.0, 1e-6):
            scaler = fit_scaler((x_NCT * unit).astype(np.float32), groups, method, np.random.default_rng(0))
            y = np.einsum("dc,nct->ndt", scaler.matrix_CC, (x_NCT * unit).astype(np.float32) - scaler.offset_C[:, None])
            scaled.append(y)
        assert np.allclose(scaled[0], scaled[1], atol=0.02 * np.abs(scaled[0]).max())


@pytest.mark.parametrize("seed", range(6))
def test_the_rejection_limit_is_autorejects(seed: int) -> None:
    from autoreject import validation_curve

    rng = np.random.default_rng(seed)
    x_NCT = (rng.standard_normal((60, 5, 40)) + np.sin(np.arange(40) / 4)).astype(np.float32)
    x_NCT[rng.permutation(60)[:12], 2] += (1 + 10 * seed) * rng.standard_normal((12, 40)).astype(np.float32)
    epochs = mne.EpochsArray(x_NCT, mne.create_info([f"E{k}" for k in range(5)], 100.0, "eeg"))
    largest = peak_to_peak(x_NCT)
    candidates = np.unique(np.quantile(largest, np.linspace(0.1, 1.0, 40), method="higher"))
    # a hair above: their amplitudes are in double precision
    _, scores = validation_curve(epochs, param_range=candidates.astype(float) * (1 + 1e-6), cv=5)
    folds = np.array_split(np.arange(60), 5)
    ours = np.mean([_losses(x_NCT, largest, candidates, held) for held in folds], axis=0)
    assert np.allclose(ours, -scores.mean(1), atol=1e-5)
    limit = autoreject_limit(x_NCT)
    assert limit == candidates[int(scores.mean(1).argmax())]
    if seed > 1:  # the artefacts are large enough to be told apart
        assert 45 <= (peak_to_peak(x_NCT) <= limit).sum() <= 48


def test_a_lost_signal_with_jitter_is_a_dropout() -> None:
    rng = np.random.default_rng(0)
    x_TC = 120 * rng.standard_normal((60_000, 40)).astype(np.float32)
    for start, jitter in ((10_000, 5.0), (20_000, 1.0), (30_000, 0.0)):
        x_TC[start : start + 600] = 1e4 + jitter * rng.standard_normal((600, 40))
    found = scan(lambda a, b: x_TC[a:b], len(x_TC), 60)
    assert [(round(a, -1), round(b, -1)) for a, b in found.dropouts] == [(k, k + 600) for k in (10_000, 20_000, 30_000)]
    assert scan(lambda a, b: x_TC[a:b], 9_000, 60).dropouts == ()


def test_onset_distances_and_other_paces_are_said() -> None:
    onset = np.concatenate([k * 5000 + 100 * np.arange(20) for k in range(10)])
    sequence = np.repeat(np.arange(10), 20)
    good = check_distances(onset, sequence, 1000.0, (0.098, 0.102))
    assert (good.median_s, good.n_distances, good.n_outside, good.notes) == (0.1, 190, 0, ())
    fast = onset.copy()
    fast[sequence == 3] = 15_000 + np.rint(93.7 * np.arange(20)).astype(int)
    found = check_distances(fast, sequence, 1000.0, (0.098, 0.102))
    assert found.n_outside == 19
    assert "1 of 10 sequences run at another pace than the median of 100.0 ms: 3 (94.0 ms)" in found.notes[0]
    assert (
        "19 of 190 onset distances lie outside 98.0..102.0 ms (93.0..94.0 ms), the first at 15.000 s" in found.notes[1]
    )
    late = onset.copy()
    late[30] += 40
    assert check_distances(late, sequence, 1000.0, None).n_outside == 2  # before and after
    assert check_distances(onset, np.zeros(200, int), 1000.0, None).n_distances == 190  # the others are pauses
    assert check_distances(onset[:1], sequence[:1], 1000.0, None).n_distances == 0


def test_trigger_delay_and_jitter() -> None:
    rng = np.random.default_rng(0)
    onset = 1200 + 1800 * np.arange(40) + rng.integers(-200, 200, 40)
    trigger = 0.01 * rng.standard_normal(80_000)
    for k, sample in enumerate(onset[:38]):
        trigger[sample + 12 + (k % 3) : sample + 600] += 1.0
    said = check_trigger(trigger, onset, 1200.0)
    assert said == (
        "trigger edges follow the onsets by 10.8 ms (median; standard deviation 0.68 ms), 2 of 40 onsets have none"
    )
    assert "constant" in check_trigger(np.zeros(1000), onset, 1200.0)

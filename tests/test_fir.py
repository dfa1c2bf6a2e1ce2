"""The block-wise filter has MNE's numbers: everywhere, ends and block borders included."""

from __future__ import annotations

from pathlib import Path

import mne
import numpy as np
import pytest

from conftest import noise
from synapse_diffusion.config import ConvertSettings
from synapse_diffusion.convert.recording import fir_plan
from synapse_diffusion.errors import DataError
from synapse_diffusion.signal import fir
from synapse_diffusion.signal.fir import filter_resample


@pytest.mark.parametrize(
    ("sfreq", "low", "high", "out", "n"),
    [
        (1000.0, 0.1, 100.0, 250.0, 120_000),  # THINGS-EEG1
        (1200.0, 0.1, 40.0, 200.0, 120_000),  # THINGS-MEG
        (1200.0, 0.5, 40.0, 250.0, 60_000),  # a ratio of 5 / 24
        (1024.0, 0.5, 40.0, 250.0, 51_200),  # 125 / 512
        (256.0, 1.0, 30.0, 128.0, 30_720),
        (500.0, 0.0, 40.0, 100.0, 25_000),
        (250.0, 0.1, 40.0, 250.0, 40_000),  # no resampling
        (1000.0, 0.1, 100.0, 250.0, 20_000),  # shorter than the filter
    ],
)
@pytest.mark.parametrize("block", [16384, 512])
def test_same_numbers_as_mne(
    sfreq: float, low: float, high: float, out: float, n: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fir, "BLOCK", block)
    x_TC = noise(n, 4)
    raw = mne.io.RawArray(x_TC.T.astype(float), mne.create_info(4, sfreq, "eeg"))
    raw.filter(low or None, high)
    if out != sfreq:
        raw.resample(out, method="polyphase")
    expected_TC = raw.get_data().T
    settings = ConvertSettings(highpass_hz=low, lowpass_hz=high, sfreq=out)
    blocks = filter_resample(lambda a, b: x_TC[a:b], n, fir_plan(settings, sfreq, Path("x")))
    y_TC = np.concatenate(list(blocks))
    assert y_TC.shape == expected_TC.shape
    spread = np.abs(expected_TC - expected_TC.mean(0)).max(0)
    assert np.max(np.abs(y_TC - expected_TC).max(0) / spread) < 1e-3
    slope = (y_TC * expected_TC).sum(0) / (expected_TC**2).sum(0)
    assert np.allclose(slope, 1.0, atol=1e-4)


def test_notch_takes_the_hum_and_leaves_the_rest() -> None:
    t = np.arange(60_000) / 1000
    x_TC = np.stack([np.sin(2 * np.pi * 50 * t), np.sin(2 * np.pi * 20 * t)], axis=1).astype(np.float32)
    plan = fir_plan(ConvertSettings(notch_hz=(50.0,)), 1000.0, Path("x"))
    y_TC = np.concatenate(list(filter_resample(lambda a, b: x_TC[a:b], len(x_TC), plan)))[5000:10000]
    hum, signal = y_TC.std(0) * np.sqrt(2)
    assert hum < 0.01
    assert signal == pytest.approx(1.0, abs=0.01)


def test_a_rate_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(DataError, match=r"128 Hz, which convert\.sfreq = 250 Hz"):
        fir_plan(ConvertSettings(), 128.0, Path("x"))

"""Independent components of eyes and heart, found and taken out by MNE."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import mne
import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.config import ConvertSettings
from synapse_diffusion.convert.channels import sensor_info
from synapse_diffusion.errors import DataError, MissingError
from synapse_diffusion.types import SensorArray

FIT_S: Final = 600.0  # of signal are enough for some tens of components
FIT_HIGHPASS_HZ: Final = (
    1.0  # slower drifts cost components; the solution holds for the unfiltered signal (MNE's advice)
)
FRONTAL: Final = ("Fp1", "Fp2", "Fpz", "AF7", "AF8")  # speak for the eyes where no EOG was recorded
BRAIN: Final = ("brain", "other")  # ICLabel's classes that stay (Pion-Tonachini et al. 2019)
ICLABEL_MIN: Final = 0.7  # probability from which on a component is taken for an artefact


def ica_matrix(
    signal_TC: NDArray[np.float32],
    auxiliary_TA: NDArray[np.float32],
    auxiliary: Mapping[str, str],
    raw: Any,
    sensors: SensorArray,
    settings: ConvertSettings,
    notes: list[str],
    path: Path,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """(C, C) that takes out the components found, and what was found; bad sensors are left as they are.

    `signal_TC` in V or T and `auxiliary_TA` (EOG, ECG) are the filtered signals at `settings.sfreq`.
    Raises `DataError` where there are fewer good sensors than components, `MissingError` without mne-icalabel.
    """
    if settings.ica == "iclabel" and "eeg" not in sensors.kinds:
        raise DataError(f'{path}: convert.ica = "iclabel" knows EEG only; take "eog_ecg" for MEG')
    good = [k for k, status in enumerate(sensors.status) if status == "good"]
    names = [sensors.names[k] for k in good]
    if settings.ica_components >= len(good):
        raise DataError(
            f"{path}: convert.ica_components = {settings.ica_components} of {len(good)} good sensors; ask for fewer, "
            'or set convert.ica = "none"'
        )
    n = min(len(signal_TC), round(FIT_S * settings.sfreq))
    start = (len(signal_TC) - n) // 2
    fit_on = _raw(signal_TC[start : start + n, good], sensor_info(raw, sensors, names), settings.sfreq)
    if auxiliary:
        info = mne.create_info(list(auxiliary), settings.sfreq, list(auxiliary.values()), verbose="error")
        fit_on.add_channels([_raw(auxiliary_TA[start : start + n], info, settings.sfreq)], force_update_info=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_on.filter(FIT_HIGHPASS_HZ, None, verbose="error")
        if settings.ica == "iclabel":
            fit_on.set_eeg_reference("average", verbose="error")
        # ICLabel learned from extended infomax; FastICA finds the same eyes and heart in a tenth of the time
        algorithm = {"method": "infomax", "fit_params": {"extended": True}} if settings.ica == "iclabel" else {}
        ica = mne.preprocessing.ICA(
            settings.ica_components, random_state=settings.ica_seed, verbose="error", **algorithm
        )
        ica.fit(fit_on, verbose="error")
        found = _iclabel(fit_on, ica) if settings.ica == "iclabel" else _eog_ecg(fit_on, ica, auxiliary, notes)
        ica.exclude = sorted({k for components in found.values() for k in components})
        matrix = np.eye(len(sensors.names))
        matrix[np.ix_(good, good)] = _matrix_of(ica, fit_on.info, names)
    taken = ", ".join(f"{len(components)} {kind}" for kind, components in found.items() if components) or "none"
    notes.append(f"ICA: {settings.ica_components} components, taken out: {taken}")
    return matrix, {"components": settings.ica_components, "taken_out": {k: list(v) for k, v in found.items()}}


def _raw(signal_TC: NDArray[np.float32], info: Any, sfreq: float) -> Any:
    with info._unlock():
        info["sfreq"], info["lowpass"], info["highpass"] = sfreq, sfreq / 2, 0.0
    return mne.io.RawArray(signal_TC.T.astype(np.float64), info, verbose="error")


def _eog_ecg(fit_on: Any, ica: Any, auxiliary: Mapping[str, str], notes: list[str]) -> dict[str, list[int]]:
    """Components that go with the EOG (or the front of the head) and with the heart."""
    found: dict[str, list[int]] = {"eog": [], "ecg": []}
    eyes = [name for name, kind in auxiliary.items() if kind == "eog"]
    eyes = eyes or [name for name in FRONTAL if name in fit_on.ch_names]
    if eyes:
        found["eog"] = [int(k) for k in ica.find_bads_eog(fit_on, ch_name=eyes, verbose="error")[0]]
    else:
        notes.append("ICA: no EOG channel and no electrode near the eyes: their components are not looked for")
    if "ecg" in auxiliary.values() or "mag" in fit_on.get_channel_types(unique=True):
        found["ecg"] = [int(k) for k in ica.find_bads_ecg(fit_on, method="correlation", verbose="error")[0]]
    else:
        notes.append("ICA: no ECG channel: the heart's components are not looked for")
    return found


def _iclabel(fit_on: Any, ica: Any) -> dict[str, list[int]]:
    try:
        from mne_icalabel import label_components
    except ImportError:
        raise MissingError(
            "convert.ica = \"iclabel\" needs mne-icalabel: pip install 'synapse-diffusion[artefacts]'"
        ) from None
    labels = label_components(fit_on, ica, method="iclabel")
    found: dict[str, list[int]] = {}
    for k, (label, p) in enumerate(zip(labels["labels"], labels["y_pred_proba"], strict=True)):
        if label not in BRAIN and p >= ICLABEL_MIN:
            found.setdefault(label, []).append(k)
    return found


def _matrix_of(ica: Any, info: Any, names: list[str]) -> NDArray[np.float64]:
    """What `ica.apply` does to each sensor: its effect on unit vectors less that on nothing."""
    picked = mne.pick_info(info, [info.ch_names.index(name) for name in names], verbose="error")
    unit = np.hstack([np.eye(len(names)), np.zeros((len(names), 1))])
    applied = ica.apply(mne.io.RawArray(unit, picked, verbose="error"), verbose="error").get_data()
    return np.asarray(applied[:, :-1] - applied[:, -1:])

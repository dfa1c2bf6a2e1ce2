"""Figures of results are drawn, whatever is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from synapse_diffusion.figures.scores import draw_bars, draw_generalisation, draw_retrieval, draw_time_course


def drawn(path: Path) -> bool:
    return bool(imread(path)[..., :3].std() > 0.01) and not path.with_name(path.name + ".part").exists()


def test_time_course(tmp_path: Path) -> None:
    times = np.linspace(-0.1, 0.8, 46)
    rise = 0.5 + 0.2 * np.exp(-(((times - 0.15) / 0.06) ** 2))
    draw_time_course(times, rise, 0.5, 0.55, "AUC", "t", tmp_path / "a.png")
    draw_time_course(times[:1], rise[:1], 0.5, np.nan, "AUC", "t", tmp_path / "b.png")
    assert drawn(tmp_path / "a.png")
    assert drawn(tmp_path / "b.png")


def test_generalisation(tmp_path: Path) -> None:
    times = np.linspace(-0.1, 0.8, 19)
    draw_generalisation(times, 0.5 + 0.3 * np.eye(19), 0.5, "t", tmp_path / "a.png")
    draw_generalisation(times, np.full((19, 19), 0.5), 0.5, "t", tmp_path / "b.png")
    assert drawn(tmp_path / "a.png")
    assert drawn(tmp_path / "b.png")


def test_retrieval_and_bars(tmp_path: Path) -> None:
    rows = [(1, 0.02, 0.01, 0.03), (12, 0.2, 0.15, 0.25)]
    draw_retrieval({"compact": rows, "ridge": rows[:1]}, 0.005, "t", tmp_path / "a.png")
    draw_bars([("EEG", 0.2, 0.15, 0.25), ("no interval", 0.1, np.nan, np.nan)], 0.005, "t", tmp_path / "b.png")
    assert drawn(tmp_path / "a.png")
    assert drawn(tmp_path / "b.png")

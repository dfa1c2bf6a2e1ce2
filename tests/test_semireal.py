"""The study of real photos: test concepts shown nowhere else, the same pictures each time, targets of each picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from synapse_diffusion.store.embeddings import open_embeddings

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import semireal


@pytest.mark.slow
def test_real_photos_as_a_study(real: Path, tmp_path: Path) -> None:
    few: dict[str, Any] = {"exemplars": 2, "test_concepts": 300, "people": 1, "channels": 16, "main_repeats": 1}
    recipe = semireal.build(tmp_path, real, **few)
    assert semireal.build(tmp_path, real, **few) == recipe  # nothing is done again
    table = pd.read_csv(tmp_path / "stimuli/concepts.tsv", sep="\t", keep_default_na=False)
    test, main = table[table["is_test"] == 1], table[table["is_test"] == 0]
    assert len(set(test["concept"])) == len(test) == 300
    assert not set(test["concept"]) & set(main["concept"])
    assert set(main["concept"].value_counts()) == {2}
    of_concept = dict(zip(table["concept"], table["category"], strict=True))
    assert of_concept["album"] == "home decor"
    assert of_concept["acorn"] == "none"
    semireal.write_stimuli(tmp_path / "again", real, 0, 2, 300)
    for file in table["file"]:
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "stimuli" / file).read_bytes()

    targets = open_embeddings(tmp_path / "embeddings/targets")
    assert set(targets.vectors) == set(semireal.TARGETS)
    assert sorted(targets.rows["image_id"]) == sorted(Path(file).stem for file in table["file"])
    concepts = list(pd.read_csv(real / "things/things_concepts.tsv", sep="\t")["uniqueID"])
    spose = np.loadtxt(real / "things/spose_embedding_66d_sorted.txt", dtype=np.float32)
    assert np.array_equal(targets.vectors["spose"], spose[[concepts.index(name) for name in targets.rows["concept"]]])

    check = semireal.Check(recipe)
    trials = check.epochs.trials
    assert len(check.test) == 300 * 12
    assert not set(trials["concept"].iloc[check.train]) & set(trials["concept"].iloc[check.test])
    assert len(check.images) == 300
    truth = check.epochs.trials["image_id"].iloc[check.test].map(check.images.index).to_numpy()
    assert check.found("single trials", np.eye(300)[truth]) == "1.000 / 1.000"

"""Real photos shown to simulated people: a study whose targets are not its generator.

    python benchmarks/semireal.py FOLDER [--data ../shared/data] [--modality eeg|meg] [--preset demo|realistic]
                                  [--generator stages|network] [--seed 0] [--scores]

Each photo of a THINGS concept gives several exemplars, by crop and flip. Some concepts are kept for the test: one
picture each, shown 12 times; they are in no other part. Prints sizes and times, and with `--scores` how well ridge
regression (cosine), the encoding model and the identification observer find the test pictures among all of them.

What the simulated brain answers to is never a target: local contrast and colour on a grid and oriented energy at three
scales, or a random network (`network`), and random vectors of category, concept and picture. Targets are layers of
Tiny Darknet, trained on ImageNet, of each picture and of two blurred copies, and SPoSE, 66 dimensions from people's
judgements of similarity (Hebart et al. 2020). GIST is not offered: its oriented energies on a grid are too near to the
simulator's own. A category here is the rarest of its concept's THINGS categories, so SPoSE and the logits know
something of the random vectors, as they should.

`data` holds photos/ (with labels.csv: file, uniqueID, categories separated by a bar), things/ and weights/.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps

from synapse_diffusion.bids.truth import read_truth
from synapse_diffusion.config import Recipe, parse_recipe
from synapse_diffusion.convert import convert
from synapse_diffusion.embed import embed
from synapse_diffusion.evaluate import observer_epochs, person_observer
from synapse_diffusion.models.encoding import plan_encoding
from synapse_diffusion.models.ridge import plan_ridge
from synapse_diffusion.simulate import simulate
from synapse_diffusion.store.embeddings import EmbeddingTable, open_embeddings, write_embeddings
from synapse_diffusion.training.data import ScaledEpochs, fit_scalers, open_epochs, open_stores

DATA: Final = Path("../shared/data")
SIZE: Final = 224  # pixels a side of a picture
CROP: Final = (0.7, 0.95)  # smallest and largest side of a crop, of the photo's shorter side
LAYERS: Final = ("conv8", "conv10", "conv12", "conv14", "logits")
BLUR: Final = (4.0, 16.0)  # standard deviations in pixels
SHARP: Final = (*LAYERS, "spose")
TARGETS: Final = (*SHARP, *(f"{layer}@blur{sigma:g}" for sigma in BLUR for layer in LAYERS))
BIN_S: Final = 0.03
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "eeg": {
        "data": {
            "events": {
                "image": "stim", "is_test": "isteststim", "is_target": "istarget", "sequence": "sequencenumber",
                "duration_unit": "milliseconds",
            },
        },
        "simulate": {"channels": 63, "sfreq": 250.0, "main_repeats": 4},
        "split": {"validation_sequences": 0.15},
    },
    "meg": {
        "data": {
            "events": {
                "image_number": "value", "concept_number": "things_category_nr", "is_test": "trial_type=test",
                "is_catch": "trial_type=catch",
            },
        },
        "simulate": {
            "channels": 64, "sfreq": 250.0, "main_repeats": 2, "mains_hz": 60.0, "onset_distance_s": 0.7,
            "onset_jitter_s": 0.1, "duration_s": 0.5, "catch_share": 0.05, "sessions": 2, "runs": 2,
        },
        "split": {"validation_sequences": 0.0, "test_sequences": 0.0},
    },
}  # fmt: skip


def quiet(*_: object) -> None:
    """For `say` and `progress`."""


def build(
    folder: Path,
    data: Path = DATA,
    modality: str = "eeg",
    preset: str = "demo",
    seed: int = 0,
    *,
    generator: str = "stages",
    exemplars: int = 6,
    test_concepts: int = 100,
    people: int = 2,
    **simulate_settings: object,
) -> Recipe:
    """Pictures, simulated recordings, their stores and the table of targets under `folder`; the recipe that reads them.

    The table lies in `paths.embeddings` under `targets`. All modalities, presets, generators and numbers of repeats of
    one folder show the same pictures; a folder is for one seed and number of exemplars. Work that is done is not
    repeated.
    """
    stimuli = folder / "stimuli"
    if not stimuli.exists():
        write_stimuli(stimuli, data, seed, exemplars, test_concepts)
    about, name = SETTINGS[modality], f"semireal-{modality}-{preset}-{generator}"
    if "main_repeats" in simulate_settings:
        name += f"-{simulate_settings['main_repeats']}"
    recipe = parse_recipe(
        {
            "paths": {
                "bids": str(folder / name), "stores": str(folder / "stores"),
                "runs": str(folder / "runs"), "embeddings": str(folder / "embeddings"), "stimuli": str(stimuli),
            },
            "data": {"name": name, "modality": modality, **about["data"]},
            "simulate": {
                "preset": preset, "generator": generator, "seed": seed, "people": people, "test_repeats": 12,
                "picture_size": SIZE, **about["simulate"], **simulate_settings,
            },
            "convert": {"highpass_hz": 0.1, "lowpass_hz": 40.0, "sfreq": 125.0},
            "view": {"start_s": 0.0, "stop_s": 0.6},
            "split": {"method": "concepts", "test": "dataset", **about["split"]},
            "embed": {
                "encoder": "darknet", "weights": str(data / "weights/tiny_darknet_imagenet.safetensors"),
                "layers": list(LAYERS), "token": "grid", "blur": list(BLUR),
            },
            "execution": {"threads": 1, "workers": 1},
        }
    )  # fmt: skip
    simulate(recipe, quiet, quiet)
    convert(recipe, quiet, quiet)
    if not (folder / "embeddings/targets").exists():
        table = embed(recipe, quiet, quiet)[1]
        vectors = {**table.vectors, "spose": spose(data, list(table.rows["concept"]))}
        write_embeddings(EmbeddingTable(table.rows, vectors, table.encoder), folder / "embeddings/targets")
    return recipe


def write_stimuli(folder: Path, data: Path, seed: int, exemplars: int, test_concepts: int) -> None:
    """Exemplars of each photo as jpg in folders by concept, and `concepts.tsv`; test concepts give one picture each."""
    photos = pd.read_csv(data / "photos/labels.csv", keep_default_na=False).sort_values("uniqueID")
    count = Counter(name for names in photos["categories"] for name in names.split("|"))
    chosen = np.random.default_rng(seed).permutation(photos["uniqueID"])[:test_concepts]
    draft, rows = folder.with_name(f".{folder.name}.unfinished"), []
    for file, concept, categories in photos[["file", "uniqueID", "categories"]].itertuples(index=False):
        is_test = concept in set(chosen)
        category = min(categories.split("|"), key=lambda name: (count[name], name)) or "none"
        (draft / concept).mkdir(parents=True, exist_ok=True)
        photo = Image.open(data / "photos" / file).convert("RGB")
        for k, picture in zip(range(1 if is_test else exemplars), crops(photo, file), strict=False):
            name = f"{concept}/{Path(file).stem}-{k}.jpg"
            picture.save(draft / name, quality=95)
            rows.append((name, concept, category, int(is_test)))
    table = pd.DataFrame(rows, columns=["file", "concept", "category", "is_test"])
    table.to_csv(draft / "concepts.tsv", sep="\t", index=False)
    draft.rename(folder)


def crops(photo: Image.Image, name: str) -> Iterator[Image.Image]:
    """Square exemplars of a photo without end: first its middle, then crops and flips that follow from its name."""
    side = min(photo.size)
    yield ImageOps.fit(photo, (SIZE, SIZE), Image.Resampling.LANCZOS)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    while True:
        size = round(side * rng.uniform(*CROP))
        left, top = (int(rng.integers(length - size + 1)) for length in photo.size)
        picture = photo.crop((left, top, left + size, top + size)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        yield ImageOps.mirror(picture) if rng.random() < 0.5 else picture


def spose(data: Path, concepts: list[str]) -> NDArray[np.float32]:
    """Each concept's 66 dimensions (N, 66)."""
    names = pd.read_csv(data / "things/things_concepts.tsv", sep="\t", usecols=["uniqueID"])["uniqueID"]
    row = {name: k for k, name in enumerate(names)}
    table = np.loadtxt(data / "things/spose_embedding_66d_sorted.txt", dtype=np.float32)
    return np.asarray(table[[row[name] for name in concepts]])


class Check:
    """A study's trials, split, scaled and averaged, to ask how its test pictures are found."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.epochs = open_epochs(open_stores(recipe, quiet), recipe, "cpu")
        trials = self.epochs.trials
        is_test = (trials["is_test"] == 1).to_numpy()
        shown = (trials["usable"] & (trials["is_catch"] == 0)).to_numpy(dtype=bool)
        train = np.flatnonzero(shown & ~is_test & ~trials["concept"].isin(set(trials.loc[is_test, "concept"])))
        self.train, self.test = train, np.flatnonzero(shown & is_test)
        people = sorted(set(trials["person"]))
        self.person_N = trials["person"].map(people.index).to_numpy(dtype=np.int64)
        self.images = sorted(set(trials["image_id"].iloc[self.test]))
        scalers = fit_scalers(self.epochs, train, np.zeros(len(trials), np.int64), recipe.view, "x", 0)
        data = ScaledEpochs(self.epochs, scalers, "x", recipe.view)
        self.x_train = data.read(train).numpy()
        shown_to = trials.iloc[self.test].groupby(["person", "image_id"], sort=True).ngroup().to_numpy()
        self.asked: dict[str, tuple[int, list[NDArray[np.int64]]]] = {
            "single trials": (1, [np.array([row]) for row in self.test]),
            "means of 12": (12, [self.test[shown_to == k] for k in range(shown_to.max() + 1)]),
        }
        self.x_test = {
            name: np.stack([data.read(rows).mean(0).numpy() for rows in groups])
            for name, (_, groups) in self.asked.items()
        }

    def found(self, name: str, score_NK: NDArray[Any]) -> str:
        """Top-1 and top-5 of score rows."""
        first = [rows[0] for rows in self.asked[name][1]]
        truth_N = self.epochs.trials["image_id"].iloc[first].map(self.images.index).to_numpy()
        own_N = score_NK[np.arange(len(truth_N)), truth_N]
        rank_N = (score_NK > own_N[:, None]).sum(1)
        return f"{np.mean(rank_N < 1):.3f} / {np.mean(rank_N < 5):.3f}"

    def targets(self, layers: list[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors of the training trials (N, D) and of the gallery (K, D), standardised; layers beside each other."""
        table = open_embeddings(Path(self.recipe.paths.embeddings) / "targets", layers)
        image, image_N = np.unique(self.epochs.trials["image_id"].iloc[self.train], return_inverse=True)
        trained, gallery = table.select(list(image)).vectors, table.select(self.images).vectors
        scales = {layer: np.sqrt(len(y_MD.T)) * (y_MD.std(0) + 1e-6) for layer, y_MD in trained.items()}
        y_MD, gallery_KD = (
            np.concatenate([(part[layer] - trained[layer].mean(0)) / scales[layer] for layer in layers], axis=1)
            for part in (trained, gallery)
        )
        return y_MD[image_N], gallery_KD

    def decoders(self, layer: str) -> Iterator[tuple[str, str, str]]:
        """(decoder, which trials, top-1 / top-5) of ridge and encoding model with one layer (or several: a+b)."""
        y_ND, gallery_KD = self.targets(layer.split("+"))
        person_N, width = self.person_N[self.train], max(1, round(BIN_S * self.epochs.sfreq))
        n_people = int(self.person_N.max()) + 1
        ridge = plan_ridge(self.x_train, y_ND, person_N, n_people, width, pooled=False).fit()
        encoding = plan_encoding(self.x_train, y_ND, person_N, n_people, width, pooled=False).fit()
        unit_KD = gallery_KD / np.linalg.norm(gallery_KD, axis=1, keepdims=True)
        for name, (k_repeats, groups) in self.asked.items():
            who_N = self.person_N[[rows[0] for rows in groups]]
            predicted_ND = ridge.predict(self.x_test[name], who_N)
            yield (
                f"ridge, {layer}",
                name,
                self.found(name, predicted_ND @ unit_KD.T),
            )  # the row's own norm ranks nothing
            yield (
                f"encoding, {layer}",
                name,
                self.found(name, encoding.scores(self.x_test[name], who_N, gallery_KD, k_repeats)),
            )

    def observer(self) -> Iterator[tuple[str, str, str]]:
        """Likewise of the identification observer, where its truth is written."""
        trials = self.epochs.trials
        parts = []
        for person in sorted(set(trials["person"])):
            truth = read_truth(Path(self.recipe.paths.bids), person)
            if truth is None:
                return
            observer, width = person_observer(truth, self.epochs, self.recipe)
            rows = self.test[(trials["person"].iloc[self.test] == person).to_numpy()]
            x_NCT = observer_epochs(self.epochs, [np.array([row]) for row in rows], width)
            parts.append(observer.identify(x_NCT, np.array([truth.images.index(name) for name in self.images])))
        order = np.concatenate(
            [self.test[(trials["person"].iloc[self.test] == p).to_numpy()] for p in sorted(set(trials["person"]))]
        )
        of_row = dict(zip(order.tolist(), np.concatenate(parts), strict=True))
        for name, (_, groups) in self.asked.items():
            score_NK = np.stack([sum(of_row[int(row)] for row in rows) for rows in groups])
            yield "identification observer", name, self.found(name, score_NK)


def main() -> None:
    """Make one study and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--modality", default="eeg", choices=["eeg", "meg"])
    parser.add_argument("--preset", default="demo", choices=["demo", "realistic"])
    parser.add_argument("--generator", default="stages", choices=["stages", "network"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", nargs="*", default=[*LAYERS, "spose", "conv8+conv12+logits+spose"])
    parser.add_argument("--scores", action="store_true")
    given = parser.parse_args()
    start = time.perf_counter()
    recipe = build(given.folder, given.data, given.modality, given.preset, given.seed, generator=given.generator)
    print(f"{given.modality}, {given.preset}, {given.generator}: made in {time.perf_counter() - start:.0f} s")
    for name in (recipe.paths.bids, f"{recipe.paths.stores}/{recipe.data.name}", recipe.paths.embeddings):
        size = sum(path.stat().st_size for path in Path(name).rglob("*") if path.is_file())
        print(f"    {Path(name).name:28s} {size / 2**20:6.0f} MiB")
    check = Check(recipe)
    print(f"    {len(check.train)} main and {len(check.test)} test trials, {len(check.images)} test images")
    if given.scores:
        print(f"    top-1 / top-5; chance {1 / len(check.images):.3f} / {5 / len(check.images):.3f}")
        for layer in given.layers:
            for name, which, value in check.decoders(layer):
                print(f"    {name + ', ' + which:52s} {value}", flush=True)
        for name, which, value in check.observer():
            print(f"    {name + ', ' + which:52s} {value}")


if __name__ == "__main__":
    main()

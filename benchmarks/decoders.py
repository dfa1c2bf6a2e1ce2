"""Every decoder on one study of real photos, each tuned on validation within one budget, tested once.

    python benchmarks/decoders.py FOLDER [--data ../shared/data] [--task retrieve|classify] [--modality eeg|meg]
        [--preset demo|realistic] [--generator stages|network] [--seeds 3] [--steps 600] [--rates 0.0003 0.001 0.003]
        [--decoders compact eegnet tsconv atm brain_module] [--means-of 4] [--repeats 1 2 4] [--processes 1]

The study is `benchmarks/semireal.py`'s: what is simulated is never a target, and test concepts are in no other part.
Every network has the same steps, batches, targets and learned map of images, and as many tries: each learning rate of
`--rates` on one seed; the one of the lowest validation loss is then trained with every seed and tested. Published
decoders have their published ends (`model.projector`; residual layers, for images). Ridge (or LDA), the encoding model
and the observers stand beside compact; penalties, widths and layers of theirs, more than there are rates, are chosen
on validation too. Printed: parameters, trials a second (forward and backward, one thread), top-1 and top-5 (or balanced
accuracy) of single trials and means of 12, and how much more often compact, and its sum with the encoding model, is
right than each, with a 95 % interval over images (concepts) and seeds.
`--means-of`: training trials are means of up to so many of a person's trials of an image, how many is drawn each time;
4 for images, else 2. Compact's are then means under random weights, for images with a convolution 512 wide.
`--repeats`: also how compact, ridge and the encoding model grow with the trials of each main picture. `--processes`: so
many fits side by side (one GPU bears many). Work that is done is not repeated.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from semireal import DATA, build, quiet
from speed import positions, seconds
from synapse_diffusion.config import Recipe, parse_recipe
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.metrics import paired_difference, people_interval
from synapse_diffusion.models.base import Shape
from synapse_diffusion.runs import Run, load_tensors
from synapse_diffusion.train import find_state, train
from synapse_diffusion.training.decoders import build as build_decoder

DECODERS: Final = ("compact", "eegnet", "tsconv", "atm", "brain_module")
RESIDUAL: Final = ("tsconv", "atm", "brain_module")
OURS: Final = "compact"
TOGETHER: Final = "compact + encoding"  # the sum of their calibrated log-likelihoods
CLASSES: Final = 6  # largest categories of the photos
COMPONENTS: Final = 128  # principal components of each layer: ridge to all 5,674 numbers takes minutes
WIDE: Final = 512  # compact's temporal filters where images are decoded from means
MEANS_OF: Final = {"retrieve": 4, "classify": 2}
Plan = tuple[Recipe, str, str]  # task, decoder
METRICS: Final = {"retrieve": ("top1", "top5"), "classify": ("balanced_accuracy",)}


def recipe_of(
    base: Recipe, task: str, decoder: str, rate: float, seed: int, steps: int, means_of: int = 1, *, final: bool = True
) -> Recipe:
    """The base recipe with this decoder, trained so; to choose by validation alone, or to be tested."""
    values = base.model_dump(mode="json")
    if task == "retrieve":
        values["target"] = {"task": task, "table": "targets", "components": COMPONENTS}
    else:
        values["labels"]["classes"] = largest_categories(Path(base.paths.stimuli) / "concepts.tsv")
    values["model"] = {"name": decoder}
    if task == "retrieve" and decoder in RESIDUAL:
        values["model"]["projector"] = "residual"
    if means_of > 1 and decoder == OURS:
        values["train"]["repeat_weights"] = "random"
        if task == "retrieve":
            values["model"]["width"] = WIDE
    values["train"] |= {"steps": steps, "learning_rate": rate, "seed": seed, "patience": 20}
    values["train"] |= {"repeats": means_of, "refit": final, "baselines": final and (decoder, seed) == (OURS, 0)}
    values["evaluate"] = {"permutations": 0, "bootstrap": 500, "controls": [], "maps": False}
    values["execution"] |= {"verify_stores": False}
    return parse_recipe(values)


def largest_categories(table: Path) -> list[str]:
    """Names of the categories with most concepts."""
    concepts = pd.read_csv(table, sep="\t").drop_duplicates("concept")
    counts = concepts["category"].value_counts()
    return [str(name) for name in counts.index if name != "none"][:CLASSES]


def trained(recipe: Recipe, task: str, decoder: str) -> Run:
    """A run that is trained."""
    run, why = find_state(recipe, name := f"{task}-{decoder}")
    return train(recipe, name, "benchmarks/decoders.py", quiet, quiet) if why else run


def tested(recipe: Recipe, task: str, decoder: str) -> Run:
    """A run that is trained and scored."""
    run = trained(recipe, task, decoder)
    if not (run.folder / "scores.json").exists():
        evaluate(run.folder, quiet, quiet)
    return run


def side_by_side(work: Callable[[Recipe, str, str], Run], plans: Sequence[Plan], n: int) -> Iterator[Run]:
    """What `work` makes of each plan, in `n` processes: what takes longest (baselines, the last decoder) first."""
    if n == 1:
        yield from (work(*plan) for plan in plans)
        return
    order = sorted(range(len(plans)), key=lambda k: (not plans[k][0].train.baselines, -k))
    with ProcessPoolExecutor(n, multiprocessing.get_context("spawn")) as pool:
        begun = {k: pool.submit(work, *plans[k]) for k in order}
        yield from (begun[k].result() for k in range(len(plans)))


def best_rates(base: Recipe, given: argparse.Namespace, decoders: Sequence[str]) -> dict[str, float]:
    """Each decoder's learning rate of the lowest validation loss."""
    tries = [(decoder, rate) for decoder in decoders for rate in given.rates]
    plans = [
        (recipe_of(base, given.task, decoder, rate, 0, given.steps, given.means_of, final=False), given.task, decoder)
        for decoder, rate in tries
    ]
    losses: dict[str, dict[float, float]] = {decoder: {} for decoder in decoders}
    for (decoder, rate), run in zip(tries, side_by_side(trained, plans, given.processes), strict=True):
        losses[decoder][rate] = float(run.curve["validation_loss"].min())
        print(f"    {decoder}, rate {rate:g}: validation loss {losses[decoder][rate]:.4f}", flush=True)
    return {decoder: min(of, key=lambda rate: of[rate]) for decoder, of in losses.items()}


def n_parameters(run: Run) -> int:
    """Of the network."""
    held = load_tensors(run.checkpoint("fold0_member0"))
    buffers = ("mean_PCT", "whiten", "start", "unit_1", "output_1", "series", "place", "exponent")
    return sum(v.numel() for n, v in held.items() if n.startswith("network.") and not any(b in n for b in buffers))


def scores(runs: Sequence[Run], task: str) -> pd.DataFrame:
    """Test scores of all models, mean over runs of different seeds: rows models, columns (k, metric)."""
    frames = [pd.DataFrame(run.read_scores()) for run in runs]
    rows = pd.concat(frames)
    mine = rows[(rows["split"] == "test") & (rows["person"] == "all") & (rows["control"] == "none")]
    mine = mine[mine["metric"].isin(METRICS[task]) & ~mine["transductive"].astype(bool)]
    return mine.pivot_table(index="model", columns=["k_repeats", "metric"], values="value", sort=False)


def right(runs: Sequence[Run], model: str, k: int, task: str, top: int = 1) -> pd.Series[float]:
    """Share of right decisions (the truth among the `top` best) of each image (concept), over decisions and seeds."""
    parts = []
    for run in runs:
        table = pd.read_csv(run.folder / "predictions/test.tsv", sep="\t", keep_default_na=False)
        mine = table[(table["model"] == model) & (table["k_repeats"] == k)]
        hit = mine["rank"].astype(float) < top if task == "retrieve" else mine["predicted"] == mine["label"]
        parts.append(pd.DataFrame({"unit": mine["image_id" if task == "retrieve" else "concept"], "hit": hit}))
    return pd.concat(parts).groupby("unit")["hit"].mean()


def by_seed(runs: Sequence[Run], model: str, k: int, task: str, top: int) -> pd.DataFrame:
    """`right` of each run that has the model, beside each other."""
    every = [right([run], model, k, task, top) for run in runs]
    return pd.concat([found for found in every if len(found)], axis=1, join="inner", ignore_index=True)


def difference(
    ours: tuple[Sequence[Run], str], other: tuple[Sequence[Run], str], k: int, task: str, top: int = 1
) -> str:
    """Ours less another's (runs and the model in them), seed by seed; images (concepts) and seeds are drawn again.

    A model of one seed (closed forms, the observer) stands beside each seed of the other.
    """
    mine_US, theirs_US = by_seed(*ours, k, task, top), by_seed(*other, k, task, top)
    n_seeds = max(mine_US.shape[1], theirs_US.shape[1])
    units = mine_US.index.intersection(theirs_US.index)
    left_US, right_US = (
        np.broadcast_to(of_US.loc[units].to_numpy(float), (len(units), n_seeds)) for of_US in (mine_US, theirs_US)
    )
    difference_US, rng = left_US - right_US, np.random.default_rng(0)
    unit_N, seed_N = (index.ravel() for index in np.indices(difference_US.shape))
    if n_seeds == 1:
        value, low, high = paired_difference(left_US[:, 0], right_US[:, 0], unit_N, 5000, rng)
        return f"{value:+.3f} ({low:+.3f} .. {high:+.3f})"
    (low,), (high,) = people_interval(difference_US.ravel()[None], unit_N, [seed_N], 5000, rng)
    return f"{difference_US.mean():+.3f} ({low:+.3f} .. {high:+.3f})"


def trials_per_second(recipe: Recipe, run: Run) -> float:
    """Through the network as it was trained, forward and backward, in batches of 256 on one thread."""
    n_sensors = len(run.read_provenance()["channels"][recipe.data.modality])
    n_times = round((recipe.view.stop_s - recipe.view.start_s) * recipe.convert.sfreq)
    starts = 2 if recipe.model.name == OURS and recipe.target.task == "retrieve" else 0
    shape = Shape(n_sensors, n_times, 64, 2, recipe.convert.sfreq, positions(n_sensors), starts)
    model, x_BCT = build_decoder(shape, recipe.model), torch.randn(256, n_sensors, n_times)
    torch.set_num_threads(1)
    return 256 / min(seconds(model, x_BCT, torch.arange(256) % 2) for _ in range(4))


def compare(base: Recipe, given: argparse.Namespace) -> None:
    """Tune, test and print."""
    rates = best_rates(base, given, given.decoders)
    plans = [
        (recipe_of(base, given.task, decoder, rates[decoder], seed, given.steps, given.means_of), given.task, decoder)
        for decoder in given.decoders
        for seed in range(given.seeds)
    ]
    runs: dict[str, list[Run]] = {decoder: [] for decoder in given.decoders}
    for (*_, decoder), run in zip(plans, side_by_side(tested, plans, given.processes), strict=True):
        runs[decoder].append(run)
    for recipe, _, decoder in plans[:: given.seeds]:
        size, speed = n_parameters(runs[decoder][0]), trials_per_second(recipe, runs[decoder][0])
        print(f"    {decoder}: rate {rates[decoder]:g}, {size:,d} parameters, {speed:,.0f} trials/s", flush=True)
    tables = {decoder: scores(found, given.task) for decoder, found in runs.items()}
    ks = sorted({int(k) for k in tables[given.decoders[0]].columns.get_level_values("k_repeats")})
    others = [(OURS, m) for m in tables[OURS].index if m != OURS] if OURS in runs else []
    shown: list[tuple[str, str]] = [*((d, d) for d in given.decoders), *others]
    print(f"    {'test':22s}" + "".join(f"{f'k={k} {m}':>26s}" for k in ks for m in METRICS[given.task]))
    for owner, model in shown:
        row = tables[owner].loc[model]
        print(f"    {model:22s}" + "".join(f"{row[k, m]:26.3f}" for k in ks for m in METRICS[given.task]))
    if OURS in runs:
        ours = [model for owner, model in shown if owner == OURS and model in (OURS, TOGETHER)]
        tops = (1, 5) if given.task == "retrieve" else (1,)
        for mine, top in ((mine, top) for mine in ours for top in tops):
            within = f" among its {top} best" if top > 1 else ""
            print(f"    {mine} is right more often{within} than" + "".join(f"{f'k={k}':>26s}" for k in ks))
            for owner, model in shown:
                if model != mine:
                    pair = (runs[OURS], mine), (runs[owner], model)
                    values = (difference(*pair, k, given.task, top) for k in ks)
                    print(f"    {model:28s}" + "".join(f"{value:>26s}" for value in values), flush=True)


def curve(given: argparse.Namespace) -> None:
    """With more trials of each main picture."""
    for n in given.repeats:
        base = study(given, main_repeats=n)
        rate = best_rates(base, given, [OURS])[OURS]
        recipe = recipe_of(base, given.task, OURS, rate, 0, given.steps, given.means_of)
        table = scores([tested(recipe, given.task, OURS)], given.task)
        print(f"    each main picture shown {n} times")
        print(table.round(3).to_string(), flush=True)


def study(given: argparse.Namespace, **more: Any) -> Recipe:
    """The recordings, stores and targets."""
    more |= {"generator": given.generator, "people": given.people}
    return build(given.folder, given.data, given.modality, given.preset, 0, **more)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--task", default="retrieve", choices=list(METRICS))
    parser.add_argument("--modality", default="eeg", choices=["eeg", "meg"])
    parser.add_argument("--preset", default="demo", choices=["demo", "realistic"])
    parser.add_argument("--generator", default="stages", choices=["stages", "network"])
    parser.add_argument("--people", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3])
    parser.add_argument("--decoders", nargs="+", default=list(DECODERS), choices=DECODERS)
    parser.add_argument("--means-of", type=int)
    parser.add_argument("--repeats", type=int, nargs="*", default=[])
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    given.means_of = given.means_of or MEANS_OF[given.task]
    print(f"{given.task}, {given.modality}, {given.preset}, {given.generator}, {given.steps} steps")
    if given.repeats:
        curve(given)
    else:
        compare(study(given), given)


if __name__ == "__main__":
    main()

"""The command line: parse, call one function, print, exit code. Stages are imported inside their command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from synapse_diffusion.errors import SettingsError, SynapseError
from synapse_diffusion.launch.commands import register

if TYPE_CHECKING:
    from synapse_diffusion.config import Recipe

if TYPE_CHECKING:
    from synapse_diffusion.info import Info

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Decode what was seen from EEG and MEG, and say how sure that is.",
)
HEALTH_LINES: Final = 8  # that info shows
RecipeArgument = Annotated[str, typer.Argument(help="TOML file, or the name of a shipped recipe (demo, ...).")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Override one setting; may be repeated."),
]


@app.command()
def download(
    what: Annotated[
        Literal["eeg1", "meg", "things"],
        typer.Argument(help="THINGS-EEG1, THINGS-MEG, or THINGS' tables of concepts, categories and images."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to fetch into.")],
    subject: Annotated[
        list[str] | None, typer.Option(help="Only this person (2, 02, BIGMEG1); several: 02,03.")
    ] = None,
    session: Annotated[list[str] | None, typer.Option(help="Only this session; several: 01,02.")] = None,
    derivative: Annotated[bool, typer.Option("--derivative", help="The cleaned copy instead of the raw data.")] = False,
    recipe: Annotated[
        str | None, typer.Option(help="People, sessions and the choice of raw or cleaned data of this recipe.")
    ] = None,
    from_: Annotated[Path | None, typer.Option("--from", help="Take the files from this folder, not the web.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched, and stop.")] = False,
) -> None:
    """Fetch recordings from OpenNeuro, or THINGS' tables; the same command goes on where it was interrupted."""
    from synapse_diffusion.download import download_recordings, download_things

    if what == "things":
        if subject or session or derivative or dry_run or recipe:
            raise SettingsError("download things: takes a folder and --from only; the rest is for eeg1 and meg")
        download_things(out, _say, from_)
        return
    people, sessions = _names(subject), _names(session)
    if recipe:
        from synapse_diffusion.config import load_recipe

        data = load_recipe(recipe).data
        people, sessions = people or list(data.people), sessions or list(data.sessions)
        derivative = derivative or bool(data.folder)
    with _progress() as progress:
        download_recordings(what, out, _say, progress, people, sessions, derivative, from_, dry_run)
    if dry_run:
        return
    _say("labels also need THINGS' tables (paths.things): synapse-diffusion download things FOLDER")
    command, folder = {
        "eeg1": ("eeg eeg_fruit_furniture", "derivatives/eeglab"),
        "meg": ("meg meg_fruit_furniture", "derivatives/preprocessed"),
    }[what]
    cleaned = f" --set data.folder={folder}" if derivative else ""
    _say(f"next: synapse-diffusion convert {command} --set paths.bids={out} --set paths.things=FOLDER{cleaned}")


@app.command()
def simulate(recipe: RecipeArgument, set_: SetOption = None) -> None:
    """Write a study with known truth as a BIDS data set (paths.bids)."""
    from synapse_diffusion.config import load_recipe
    from synapse_diffusion.simulate import simulate

    settings = load_recipe(recipe, set_ or ())
    with _progress() as progress:
        simulate(settings, _say, progress)


@app.command()
def convert(
    modality: Literal["eeg", "meg", "comb"],
    recipe: RecipeArgument,
    set_: SetOption = None,
    shard: Annotated[str, typer.Option(help="Only this share of the recordings, e.g. 3/16.")] = "1/1",
) -> None:
    """Turn raw BIDS recordings into signal stores (paths.stores), or pair those of EEG and MEG by image."""
    from synapse_diffusion.convert import convert, convert_pairs

    settings = _recipe_of(modality, recipe, set_)
    if modality == "comb":
        _say(str(convert_pairs(settings, _say).folder))
        return
    with _progress() as progress:
        results = convert(settings, _say, progress, _shard(shard))
    trials = sum(result.n_trials for result in results)
    _say(f"{len(results)} recordings, {trials} trials in {Path(settings.paths.stores) / settings.data.name}")


@app.command()
def embed(recipe: RecipeArgument, set_: SetOption = None) -> None:
    """Turn stimulus images (paths.images) into vectors of an image encoder: what decoders learn to predict."""
    from synapse_diffusion.config import load_recipe
    from synapse_diffusion.embed import embed

    settings = load_recipe(recipe, set_ or ())
    with _progress() as progress:
        folder, table = embed(settings, _say, progress)
    for layer, vectors in table.vectors.items():
        _say(f"{layer}: {vectors.shape[1]} numbers an image")
    _say(str(folder))


@app.command()
def train(
    what: Annotated[
        Literal["eeg", "meg", "fusion", "generator", "prior"],
        typer.Argument(help="A decoder of EEG, MEG or both; or what `reconstruct` draws pictures with."),
    ],
    recipe: Annotated[str, typer.Argument(help="A recipe's name or TOML file; of a prior, the folder of a run.")],
    set_: SetOption = None,
) -> None:
    """Train a decoder (fusion: of EEG and MEG together) and linear baselines; opens training and validation data only.

    A generator is trained on pictures of training concepts; a prior on what the run's training trials say of pictures.
    Several processes: by execution.processes, or torchrun.
    """
    if what == "prior":
        from synapse_diffusion.reconstruct import train_prior

        with _progress() as progress:
            folder = train_prior(Path(recipe), set_ or (), _say, progress)
        _say(f"next: synapse-diffusion reconstruct {recipe} --set reconstruct.prior=flow")
        _say(str(folder))
        return
    speaks = os.environ.get("RANK", "0") == "0"  # of those that torchrun has started, one
    if what == "generator":
        from synapse_diffusion.config import load_recipe
        from synapse_diffusion.generate import train_generator

        with _progress() as progress:
            run = train_generator(load_recipe(recipe, set_ or ()), _command(), _say, progress)
        if speaks:
            _say(f"trained: {run.folder}")
        return
    from synapse_diffusion.train import train

    settings = _recipe_of("comb" if what == "fusion" else what, recipe, set_)
    with _progress() as progress:
        run = train(settings, Path(recipe).stem, _command(), _say, progress)
    if speaks:
        _say(f"trained: {run.folder}")
        _say(f"next: synapse-diffusion evaluate {run.folder}")


@app.command()
def tune(
    what: Annotated[Literal["eeg", "meg", "fusion"], typer.Argument(help="A decoder of EEG, MEG or both.")],
    recipe: RecipeArgument,
    set_: SetOption = None,
    trials: Annotated[int | None, typer.Option(help="Combinations to try (tune.trials).", min=1)] = None,
    address: Annotated[
        str, typer.Option(envvar="RAY_ADDRESS", help="A Ray cluster's head (HOST:PORT, auto); else this machine.")
    ] = "",
) -> None:
    """Search over the settings in the recipe's tune.space, by what validation says; pip extra `tune`.

    The same command goes on where it was interrupted. One trial a GPU, or execution.processes of them a trial.
    """
    from synapse_diffusion.tune import tune

    given = [*(set_ or ()), *([f"tune.trials={trials}"] if trials else [])]
    settings = _recipe_of("comb" if what == "fusion" else what, recipe, given)
    with _progress() as progress:
        found = tune(settings, Path(recipe).stem, _command(), address, _say, progress)
    for line in found.said():
        _say(line)
    _say(f"next: synapse-diffusion train {what} {found.folder / 'best.toml'}")


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Folder of a trained run; or of several seeds of one recipe.")],
    out: Annotated[
        Path | None, typer.Option(help="Several seeds: folder for their table; RECIPE-seeds beside the first.")
    ] = None,
) -> None:
    """Score a run on validation and test; draw the confusion matrices.

    Several runs that differ in train.seed alone: each that is not scored yet, then mean, sd and range over seeds.
    """
    from synapse_diffusion.evaluate import evaluate, evaluate_seeds

    with _progress() as progress:
        if len(runs) > 1:
            folder, table = evaluate_seeds(runs, out, _say, progress)
        elif out is not None:
            raise SettingsError("--out is for the table over several seeds; one run's scores are kept in the run")
        else:
            rows = evaluate(runs[0], _say, progress)
    if len(runs) > 1:
        _print_seeds(table, folder)
    else:
        _print_scores(rows, runs[0])


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    recording: Annotated[
        Path | None, typer.Argument(help="A signal store, or a folder above some; without it the run's own test part.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables; predictions/ of the run by default.")] = None,
) -> None:
    """Write what the decoder says to each trial, as a table and (for images) predicted vectors."""
    from synapse_diffusion.predict import predict

    with _progress("nothing was written") as progress:
        for path in predict(run, recording, out, _say, progress):
            _say(str(path))


@app.command()
def adapt(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    recording: Annotated[Path, typer.Argument(help="A signal store of someone new, or a folder above some.")],
    trials: Annotated[
        int | None, typer.Option(help="Labelled trials to learn from; 0: scaling alone. All by default.", min=0)
    ] = None,
) -> None:
    """Give a run scalers and weights of a new person, from recordings of theirs; predict then uses them."""
    from synapse_diffusion.adapt import adapt_run

    with _progress() as progress:
        for path in adapt_run(run, recording, trials, _say, progress):
            _say(str(path))


@app.command()
def reconstruct(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run that retrieves images (target.task).")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="A.B=VALUE", help="Another setting of reconstruct.*, generator.* or pretrained.*."
        ),
    ] = None,
) -> None:
    """Draw the test pictures from the brain's signal, beside controls, and score them.

    By what `train generator` has trained, or a pretrained pipeline (pretrained.pipeline). The same command goes on
    where it was interrupted.
    """
    from synapse_diffusion.reconstruct import reconstruct

    with _progress() as progress:
        folder, rows = reconstruct(run, set_ or (), _say, progress)
    _print_pictures(rows, folder)


@app.command()
def run(recipe: RecipeArgument, set_: SetOption = None) -> None:
    """Convert, train and evaluate."""
    from synapse_diffusion.config import load_recipe
    from synapse_diffusion.pipeline import run_recipe

    settings = load_recipe(recipe, set_ or ())
    with _progress() as progress:
        folder, rows = run_recipe(settings, Path(recipe).stem, _command(), _say, progress)
    _print_scores(rows, folder)


@app.command()
def demo(
    set_: SetOption = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Also draw what was seen (recipe demo_pictures): minutes more.")
    ] = False,
) -> None:
    """Simulate, convert, train and evaluate a small study, offline, in about two minutes."""
    from synapse_diffusion.config import load_recipe
    from synapse_diffusion.pipeline import draw_recipe, run_recipe

    settings, drawn = (load_recipe(name, set_ or ()) for name in ("demo", "demo_pictures"))
    with _progress() as progress:
        folder, rows = run_recipe(settings, "demo", _command(), _say, progress, simulated=True)
    _print_scores([row for row in rows if row["person"] == "all"], folder)
    if not pictures:
        _report([folder])
        return
    with _progress() as progress:
        out, rows = draw_recipe(drawn, "demo_pictures", _command(), _say, progress)
    _print_pictures(rows, out)
    _report([out.parent, folder], folder.parent / "report.html")


@app.command()
def export(
    store: Annotated[Path, typer.Argument(help="A signal store, or a folder above some (stores/DATASET).")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    form: Annotated[Literal["npy", "safetensors", "hdf5", "fif"], typer.Option("--format", help="fif: MNE epochs.")],
    set_: SetOption = None,
) -> None:
    """Write epochs as tensor files or MNE epochs; the window is view.start_s .. view.stop_s."""
    from synapse_diffusion.export import export, view_of

    view = view_of(set_ or ())
    with _progress("nothing was written") as progress:
        exported = export(store, out, form, view, _say, progress)
    files = exported.files[0] + (f" .. {exported.files[-1]}" if len(exported.files) > 1 else "")
    _say(f"{out}: {files} with trials.tsv, sensors.tsv and about.json")


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="A BIDS folder, signal store, folder of stores, pairs index or run.")],
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the evoked response (of stores) into this file.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe whose window (view) and categories (labels) are counted.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Say what a folder holds: people, trials, images, categories, rates, channels, size, health."""
    from synapse_diffusion.info import info, settings_for

    settings = settings_for(recipe, set_ or ())
    with _progress("nothing was written") as progress:
        found = info(path, settings, plot, _say, progress)
    _print_info(found)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of scored runs; several stand side by side.")],
    out: Annotated[
        Path | None, typer.Option(help="The file; RUN/report.html, of several runs report.html beside the first.")
    ] = None,
) -> None:
    """Write one HTML page: the answer, the pictures, every score and control, data quality, a validity checklist."""
    _report(runs, out)


register(app)


def main() -> None:
    """Entry point: one line for a user's failure, and its exit code."""
    try:
        app(standalone_mode=True)
    except SynapseError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(error.exit_code)


def _recipe_of(modality: str, recipe: str, set_: list[str] | None) -> Recipe:
    """The recipe, which must be one of this modality."""
    from synapse_diffusion.config import load_recipe
    from synapse_diffusion.errors import SettingsError

    settings = load_recipe(recipe, set_ or ())
    if settings.data.modality != modality:
        word = {"comb": "convert comb or train fusion"}.get(settings.data.modality, settings.data.modality)
        raise SettingsError(
            f"{recipe}: data.modality = {settings.data.modality!r}, not {modality!r}: say {word}, or take another "
            "recipe"
        )
    return settings


def _shard(text: str) -> tuple[int, int]:
    from synapse_diffusion.errors import SettingsError

    share, _, shares = text.partition("/")
    if not (share.isdigit() and shares.isdigit()):
        raise SettingsError(f"--shard {text}: give k/n with k from 1 to n, e.g. 3/16")
    return int(share), int(shares)


def _names(values: list[str] | None) -> list[str]:
    return [name.strip() for value in values or () for name in value.split(",") if name.strip()]


def _say(line: str) -> None:
    typer.echo(line)


def _command() -> str:
    return " ".join(["synapse-diffusion", *sys.argv[1:]])


@contextmanager
def _progress(after: str = "the same command goes on from here") -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        try:
            yield report
        except KeyboardInterrupt:
            bar.stop()
            typer.secho(f"interrupted; {after}", err=True)
            raise


MAIN_METRICS: Final = {
    "classify": ("balanced_accuracy", "auc"),
    "questions": ("auc", "average_precision"),
    "retrieve": ("top1", "top5"),
}
"""What is shown of each task's scores, and what stands beside it."""


def _print_seeds(rows: list[dict[str, Any]], folder: Path) -> None:
    """The main test score of each decoder over seeds."""
    from rich.console import Console
    from rich.table import Table

    metric, _ = MAIN_METRICS[rows[0]["task"]]
    table = Table(title=f"{metric.replace('_', ' ')}, test, over seeds")
    for name in ("person", "decoder", "repeats", "mean", "sd", "smallest .. largest", "chance", "seeds"):
        table.add_column(name, justify="left" if name in ("person", "decoder") else "right")
    for row in rows:
        if (row["metric"], row["split"]) != (metric, "test"):
            continue
        sd = "" if row["sd"] is None else f"{row['sd']:.3f}"
        table.add_row(
            row["person"], _decoder(row), str(row["k_repeats"]), f"{row['mean']:.3f}", sd,
            f"{row['smallest']:.3f} .. {row['largest']:.3f}", f"{row['chance']:.3f}", str(row["n_seeds"]),
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    for name in ("seeds.tsv", "seeds.json"):
        _say(str(folder / name))


def _decoder(row: dict[str, Any]) -> str:
    """Which decoder, as what control, among how many images."""
    control = "" if row["control"] == "none" else f", {row['control'].replace('_', ' ')}"
    return str(row["model"]) + control + (f" of {row['gallery']}" if row["gallery"] else "")


def _print_scores(rows: list[dict[str, Any]], folder: Path) -> None:
    """The main score of validation and test, single and averaged, of each decoder; then where the pictures are."""
    from rich.console import Console
    from rich.table import Table

    from synapse_diffusion.pipeline import observer_shares

    metric, beside = MAIN_METRICS[rows[0]["task"]]
    among = " among the test images" if rows[0]["task"] == "retrieve" else ""
    table = Table(title=f"{metric.replace('_', ' ')}{among}")
    left = ("split", "person", "decoder")
    right = ("repeats", "value", "95 % interval", "over people", "chance", "p", "Holm", beside.replace("_", " "), "n")
    for name in (*left, *right):
        table.add_column(name, justify="left" if name in left else "right")
    other = {_key(row): row for row in rows if row["metric"] == beside}
    for row in rows:
        if row["metric"] != metric:
            continue
        p, holm = ("" if row[name] is None else f"{row[name]:.4f}" for name in ("p", "p_holm"))
        interval = "" if row["low"] is None else f"{row['low']:.3f}..{row['high']:.3f}"
        people = "" if row["low_people"] is None else f"{row['low_people']:.3f}..{row['high_people']:.3f}"
        table.add_row(
            row["split"], row["person"], _decoder(row), str(row["k_repeats"]), f"{row['value']:.3f}",
            interval, "~" * bool(row["note"]) + people, f"{row['chance']:.3f}", p, holm,
            f"{other[_key(row)]['value']:.3f}", str(row["n"]),
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    if any(row["note"] for row in rows):
        _say("~: so few people are drawn again that the interval over people is rough (docs/formats.md)")
    for line in observer_shares(rows):
        _say(line)
    for path in sorted((folder / "figures").glob("*.png")):
        _say(str(path))
    _say(str(folder / "scores.json"))


def _print_pictures(rows: list[dict[str, Any]], folder: Path) -> None:
    """Every source's figures over all people, then what the brain adds, and where the pictures are."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="reconstructions of the test images")
    for name in ("pictures from", "repeats", "metric", "value", "95 % interval", "chance", "p"):
        table.add_column(name, justify="left" if name in ("pictures from", "metric") else "right")
    for row in rows:
        if row["person"] != "all" or row["metric"] not in ("pixcorr", "ssim", "two_way pixels", "two_way gist"):
            continue
        interval = "" if row["low"] is None else f"{row['low']:.3f} .. {row['high']:.3f}"
        p = "" if row["p"] is None else f"{row['p']:.4f}"
        values = (f"{row['value']:.3f}", interval, f"{row['chance']:.3f}", p)
        table.add_row(row["model"].replace("_", " "), str(row["k_repeats"] or ""), row["metric"], *values)
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    for path in sorted(folder.glob("*.png")):
        _say(str(path))


def _report(runs: list[Path], out: Path | None = None) -> None:
    """Write the page and say where it is."""
    from synapse_diffusion.report import report

    with _progress("nothing was written") as progress:
        path = report(runs, out, _say, progress)
    _say(str(path))


def _print_info(found: Info) -> None:
    """Facts, tables, and what is wrong."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    facts = Table(title=Text(f"{found.kind}: {found.path}"), title_justify="left", show_header=False, box=None)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, value in found.facts.items():
        facts.add_row(Text(name), Text(value))
    console.print(facts)
    for part in found.tables:
        table = Table(title=Text(part.title), title_justify="left")
        for k, name in enumerate(part.columns):
            table.add_column(Text(name), justify="right" if k else "left")
        for row in part.rows:
            table.add_row(*(Text(value) for value in row))
        console.print(table)
    console.print(Text("health: " + ("" if found.health else "nothing wrong found"), style="bold"))
    for line in found.health[:HEALTH_LINES]:
        console.print(Text(f"- {line}"), soft_wrap=True)
    if (more := len(found.health) - HEALTH_LINES) > 0:
        console.print(f"- and {more} more like these")


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("split", "person", "model", "k_repeats", "control", "gallery"))

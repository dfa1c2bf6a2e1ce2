"""Commands that train, judge and use decoders, and draw pictures."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from synapse_diffusion.cli.beside import Beside
from synapse_diffusion.cli.output import is_speaker, progress_bar, say
from synapse_diffusion.cli.tables import print_pictures, print_scores, print_seeds
from synapse_diffusion.cli.words import RecipeArgument, SetOption, command_line, recipe_of, shipped
from synapse_diffusion.errors import SettingsError
from synapse_diffusion.pipeline import Stage

EVERY_PROCESSOR: Final = "execution.threads=0"  # of the demo's recipes for what its small batches do not slow


def train(
    what: Annotated[
        Literal["eeg", "meg", "fusion", "generator", "prior"],
        typer.Argument(help="A decoder of EEG, MEG or both; or what `reconstruct` draws pictures with."),
    ],
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe's name or TOML file; of a prior, the folder of a run.", autocompletion=shipped),
    ],
    set_: SetOption = None,
) -> None:
    """Train a decoder (fusion: of EEG and MEG together) and linear baselines; opens training and validation data only.

    A generator is trained on pictures of training concepts; a prior on what the run's training trials say of pictures.
    Several processes: by execution.processes, or torchrun.
    """
    if what == "prior":
        from synapse_diffusion.reconstruct import train_prior

        with progress_bar() as progress:
            folder = train_prior(Path(recipe), set_ or (), say, progress)
        say(str(folder))
        say(f"next: synapse-diffusion reconstruct {recipe} --set reconstruct.prior=flow")
        return
    if what == "generator":
        from synapse_diffusion.config import load_recipe
        from synapse_diffusion.generate import train_generator

        with progress_bar() as progress:
            train_generator(load_recipe(recipe, set_ or ()), command_line(), say, progress)
        return
    from synapse_diffusion.train import train

    settings = recipe_of("comb" if what == "fusion" else what, recipe, set_)
    with progress_bar() as progress:
        run = train(settings, Path(recipe).stem, command_line(), say, progress)
    if is_speaker():
        say(f"next: synapse-diffusion evaluate {run.folder}")


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
    settings = recipe_of("comb" if what == "fusion" else what, recipe, given)
    with progress_bar() as progress:
        found = tune(settings, Path(recipe).stem, command_line(), address, say, progress)
    for line in found.said():
        say(line)
    say(f"next: synapse-diffusion train {what} {found.folder / 'best.toml'}")


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

    with progress_bar() as progress:
        if len(runs) > 1:
            folder, table = evaluate_seeds(runs, out, say, progress)
        elif out is not None:
            raise SettingsError("--out is for the table over several seeds; one run's scores are kept in the run")
        else:
            rows = evaluate(runs[0], say, progress)
    if len(runs) > 1:
        print_seeds(table, folder)
    else:
        print_scores(rows, runs[0])


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    recording: Annotated[
        Path | None, typer.Argument(help="A signal store, or a folder above some; without it the run's own test part.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables; predictions/ of the run by default.")] = None,
) -> None:
    """Write what the decoder says to each trial, as a table and (for images) predicted vectors."""
    from synapse_diffusion.predict import predict

    with progress_bar("nothing was written") as progress:
        for path in predict(run, recording, out, say, progress):
            say(str(path))


def adapt(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    recording: Annotated[Path, typer.Argument(help="A signal store of someone new, or a folder above some.")],
    trials: Annotated[
        int | None, typer.Option(help="Labelled trials to learn from; 0: scaling alone. All by default.", min=0)
    ] = None,
) -> None:
    """Give a run scalers and weights of a new person, from recordings of theirs; predict then uses them."""
    from synapse_diffusion.adapt import adapt_run

    with progress_bar() as progress:
        for path in adapt_run(run, recording, trials, say, progress):
            say(str(path))


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

    with progress_bar() as progress:
        folder, rows = reconstruct(run, set_ or (), say, progress)
    print_pictures(rows, folder)


def run(
    recipe: RecipeArgument,
    set_: SetOption = None,
    from_: Annotated[
        Stage | None, typer.Option("--from", help="Begin with this stage; what is before it is there.")
    ] = None,
    until: Annotated[Stage | None, typer.Option(help="End after this stage.")] = None,
    pictures: Annotated[
        bool,
        typer.Option("--pictures", help="Also train a generator and draw what was seen (of recipes that retrieve)."),
    ] = False,
) -> None:
    """All stages of a recipe, each only if its inputs or settings changed: convert to report.

    Each says in one line whether it runs, and why. A study is simulated first by --from simulate.
    """
    from synapse_diffusion.config import load_recipe
    from synapse_diffusion.pipeline import run_recipe, stages_of

    settings = load_recipe(recipe, set_ or ())
    stages = stages_of(settings, from_, until, pictures=pictures)
    with progress_bar() as progress:
        run_recipe(settings, Path(recipe).stem, command_line(), say, progress, _show, stages)


def _show(stage: str, folder: Path, rows: list[dict[str, Any]]) -> None:
    (print_pictures if stage == "reconstruct" else print_scores)(rows, folder)


def demo(
    set_: SetOption = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Also draw what was seen (recipe demo_pictures).")
    ] = True,
) -> None:
    """Simulate, convert, train, evaluate and draw a small study, offline, in minutes; ends with a report."""
    from synapse_diffusion.config import load_recipe
    from synapse_diffusion.pipeline import run_recipe, stages_of
    from synapse_diffusion.report import report

    def of_everyone(stage: str, folder: Path, rows: list[dict[str, Any]]) -> None:
        _show(stage, folder, [row for row in rows if row["person"] == "all"])

    overrides = set_ or []
    with progress_bar() as progress:

        def go(name: str, stages: list[Stage], *more: str) -> Path:
            recipe = load_recipe(name, [*more, *overrides])
            return run_recipe(recipe, name, command_line(), say, progress, of_everyone, stages)

        if not pictures:
            go("demo", stages_of(load_recipe("demo", overrides), "simulate"))
            return
        go("demo", ["simulate", "convert"])
        go("demo_pictures", ["embed"], EVERY_PROCESSOR)
        words = [word for override in overrides for word in ("--set", override)]
        with (
            Beside("train", "generator", "demo_pictures", *words)
            if _has_room(overrides)
            else nullcontext() as generator
        ):
            folder = go("demo", ["train", "evaluate"])
            of_pictures = go("demo_pictures", ["train", "evaluate"])
            if generator is not None:
                generator.wait(say, progress)
        go("demo_pictures", ["generator", "reconstruct"], EVERY_PROCESSOR)
        report([of_pictures, folder], folder.parent / "report.html", say, progress)


def _has_room(overrides: list[str]) -> bool:
    """Does a demo of one thread leave a processor free, and is there no GPU that both would want?"""
    from synapse_diffusion.config import load_recipe
    from synapse_diffusion.parallel import choose_device
    from synapse_diffusion.processors import n_processors

    device = load_recipe("demo_pictures", overrides).execution.device
    return choose_device(device).type == "cpu" and n_processors() > 1


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of scored runs; several stand side by side.")],
    out: Annotated[
        Path | None, typer.Option(help="The file; RUN/report.html, of several runs report.html beside the first.")
    ] = None,
) -> None:
    """Write one HTML page: the answer, the pictures, every score and control, data quality, a validity checklist."""
    from synapse_diffusion.report import report

    with progress_bar("nothing was written") as progress:
        report(runs, out, say, progress)

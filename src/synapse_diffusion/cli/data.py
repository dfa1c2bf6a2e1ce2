"""Commands that make, turn and look at data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from synapse_diffusion.cli.output import progress_bar, say
from synapse_diffusion.cli.tables import print_info
from synapse_diffusion.cli.words import RecipeArgument, SetOption, recipe_of
from synapse_diffusion.errors import SettingsError


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
        with progress_bar():
            download_things(out, say, from_)
        return
    people, sessions = _names(subject), _names(session)
    if recipe:
        from synapse_diffusion.config import load_recipe

        data = load_recipe(recipe).data
        people, sessions = people or list(data.people), sessions or list(data.sessions)
        derivative = derivative or bool(data.folder)
    with progress_bar() as progress:
        download_recordings(what, out, say, progress, people, sessions, derivative, from_, dry_run)
    if dry_run:
        return
    say("labels also need THINGS' tables (paths.things): synapse-diffusion download things FOLDER")
    command, folder = {
        "eeg1": ("eeg eeg_fruit_furniture", "derivatives/eeglab"),
        "meg": ("meg meg_fruit_furniture", "derivatives/preprocessed"),
    }[what]
    cleaned = f" --set data.folder={folder}" if derivative else ""
    say(f"next: synapse-diffusion convert {command} --set paths.bids={out} --set paths.things=FOLDER{cleaned}")


def simulate(recipe: RecipeArgument, set_: SetOption = None) -> None:
    """Write a study with known truth as a BIDS data set (paths.bids)."""
    from synapse_diffusion.config import load_recipe
    from synapse_diffusion.simulate import simulate

    settings = load_recipe(recipe, set_ or ())
    with progress_bar() as progress:
        simulate(settings, say, progress)


def convert(
    modality: Literal["eeg", "meg", "comb"],
    recipe: RecipeArgument,
    set_: SetOption = None,
    shard: Annotated[str, typer.Option(help="Only this share of the recordings, e.g. 3/16.")] = "1/1",
) -> None:
    """Turn raw BIDS recordings into signal stores (paths.stores), or pair those of EEG and MEG by image."""
    from synapse_diffusion.convert import convert, convert_pairs

    settings = recipe_of(modality, recipe, set_)
    with progress_bar() as progress:
        if modality == "comb":
            convert_pairs(settings, say, progress)
        else:
            convert(settings, say, progress, _shard(shard))


def embed(recipe: RecipeArgument, set_: SetOption = None) -> None:
    """Turn stimulus images (paths.images) into vectors of an image encoder: what decoders learn to predict."""
    from synapse_diffusion.config import load_recipe
    from synapse_diffusion.embed import embed

    settings = load_recipe(recipe, set_ or ())
    with progress_bar() as progress:
        embed(settings, say, progress)


def export(
    store: Annotated[Path, typer.Argument(help="A signal store, or a folder above some (stores/DATASET).")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    form: Annotated[Literal["npy", "safetensors", "hdf5", "fif"], typer.Option("--format", help="fif: MNE epochs.")],
    set_: SetOption = None,
) -> None:
    """Write epochs as tensor files or MNE epochs; the window is view.start_s .. view.stop_s."""
    from synapse_diffusion.export import export, view_of

    view = view_of(set_ or ())
    with progress_bar("nothing was written") as progress:
        exported = export(store, out, form, view, say, progress)
    files = exported.files[0] + (f" .. {exported.files[-1]}" if len(exported.files) > 1 else "")
    say(f"{out}: {files} with trials.tsv, sensors.tsv and about.json")


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
    with progress_bar("nothing was written") as progress:
        found = info(path, settings, plot, say, progress)
    print_info(found)


def _shard(text: str) -> tuple[int, int]:
    share, _, shares = text.partition("/")
    if not (share.isdigit() and shares.isdigit()):
        raise SettingsError(f"--shard {text}: give k/n with k from 1 to n, e.g. 3/16")
    return int(share), int(shares)


def _names(values: list[str] | None) -> list[str]:
    return [name.strip() for value in values or () for name in value.split(",") if name.strip()]

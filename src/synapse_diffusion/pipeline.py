"""All stages in order; each does only what is not done yet, and says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from synapse_diffusion.errors import RunError, SettingsError

if TYPE_CHECKING:
    from synapse_diffusion.config import Recipe
    from synapse_diffusion.runs import Run
    from synapse_diffusion.types import Progress, Say

Stage = Literal["simulate", "convert", "embed", "train", "evaluate", "generator", "reconstruct", "report"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
PICTURES: Final = ("generator", "reconstruct")
Show = Callable[[Stage, Path, list[dict[str, Any]]], None]
"""`show(stage, folder, rows)`: the scores that a stage has made, or has found."""


def _nothing(*_: object) -> None:
    """Where nobody listens."""


def run_recipe(
    recipe: Recipe,
    name: str = "",
    command: str = "python",
    say: Say = _nothing,
    progress: Progress = _nothing,
    show: Show = _nothing,
    stages: Sequence[Stage] | None = None,
) -> Path:
    """Run the stages (`stages_of`: all but `simulate`); the decoder's run, or the folder that the last stage wrote.

    Each stage runs where its inputs or settings changed since it ran last, by the digests that it keeps, and says in
    one line whether it runs and why. For a fusion the two data sets are converted already, with recipes of their own;
    this one is about their pairs. Raises what the stages raise; `RunError` where what comes before the first one is not
    there.
    """
    work = _Work(recipe, name, command, say, progress, show)
    folder = Path(recipe.paths.bids)
    for stage in stages_of(recipe) if stages is None else stages:
        do: Callable[[], Path] = getattr(work, stage)
        folder = do()
    return folder


def stages_of(
    recipe: Recipe, first: Stage | None = None, last: Stage | None = None, *, pictures: bool = False
) -> list[Stage]:
    """The recipe's stages from `first` to `last`; by default all but `simulate`.

    `generator` and `reconstruct` only for pictures, or where one of them is named. Raises `SettingsError` where a stage
    is none of this recipe's, or the order is wrong.
    """
    skipped = set(() if pictures or {first, last} & set(PICTURES) else PICTURES)
    if recipe.target.task != "retrieve" or recipe.target.table:
        skipped.add("embed")
    if recipe.pretrained.pipeline != "none":
        skipped.add("generator")
    if not skipped & {"reconstruct"} and recipe.target.task != "retrieve":
        raise SettingsError(
            f"pictures are drawn from vectors of images: target.task must be 'retrieve', not {recipe.target.task!r}"
        )
    own = [stage for stage in STAGES if stage not in skipped]
    for option, stage in (("--from", first), ("--until", last)):
        if stage is not None and stage not in own:
            raise SettingsError(f"{option} {stage}: no stage of this recipe, which has {', '.join(own)}")
    begin, end = own.index(first or "convert"), own.index(last or "report")
    if begin > end:
        raise SettingsError(
            f"--from {own[begin]} --until {own[end]}: that one comes before this one; the order is {', '.join(own)}"
        )
    return own[begin : end + 1]


@dataclass
class _Work:
    """One recipe's stages: a method each, which returns the folder or file that it is about."""

    recipe: Recipe
    name: str
    command: str
    say: Say
    progress: Progress
    show: Show
    run: Run | None = None

    def simulate(self) -> Path:
        from synapse_diffusion.simulate import simulate, unsimulated

        if self._is_due("simulate", unsimulated(self.recipe), "the study is there"):
            simulate(self.recipe, self.say, self.progress)
        return Path(self.recipe.paths.bids)

    def convert(self) -> Path:
        from synapse_diffusion.convert import convert, convert_pairs, unconverted, unpaired

        recipe = self.recipe
        if recipe.data.modality == "comb":
            if self._is_due("convert", unpaired(recipe), "same stores"):
                convert_pairs(recipe, self.say, self.progress)
        else:
            new, n = unconverted(recipe, _nothing)
            why = f"{len(new)} of {n} recordings are new, or their files changed" if new else ""
            if self._is_due("convert", why, f"{n} recordings, same files and settings"):
                convert(recipe, self.say, self.progress)
        return Path(recipe.paths.stores) / recipe.data.name

    def embed(self) -> Path:
        from synapse_diffusion.embed import embed_asked, look

        asked = look(self.recipe, self.progress)
        if self._is_due("embed", asked.unembedded(), f"{len(asked.pictures)} images, same encoder"):
            embed_asked(self.recipe, asked, self.say, self.progress)
        return asked.folder

    def train(self) -> Path:
        from synapse_diffusion.train import find_state, train

        run, why = find_state(self.recipe, self.name)
        if self._is_due("train", why, f"same recipe, same data: {run.folder}"):
            run = train(self.recipe, self.name, self.command, self.say, self.progress)
        run.keep_recipe(self.recipe)
        self.run = run
        return run.folder

    def evaluate(self) -> Path:
        from synapse_diffusion.evaluate import evaluate, unscored

        run = self._trained()
        task = self.recipe.target.task
        if self._is_due("evaluate", unscored(run), "same run, same settings"):
            rows = evaluate(run.folder, self.say, self.progress)
        else:
            rows = [row for row in run.read_scores() if row["task"] == task]
        self.show("evaluate", run.folder, rows)
        return run.folder

    def generator(self) -> Path:
        from synapse_diffusion.generate import train_generator, untrained

        run, why = untrained(self.recipe, self.progress)
        if self._is_due("generator", why, f"same pictures, vectors and settings: {run.folder}"):
            train_generator(self.recipe, self.command, self.say, self.progress)
        return run.folder

    def reconstruct(self) -> Path:
        from synapse_diffusion.reconstruct import open_pictured, redraw, undrawn

        run = self._trained()
        opened = open_pictured(run.folder, (), self.progress)
        folder, why = undrawn(opened)
        if self._is_due("reconstruct", why, "same run, same generator, same settings"):
            folder, rows = redraw(opened, self.say, self.progress)
        else:
            rows = [row for row in run.read_scores() if row["task"] == "reconstruct"]
        self.show("reconstruct", folder, rows)
        return run.folder

    def report(self) -> Path:
        from synapse_diffusion.report import page_path, report, unreported

        folders = [self._trained().folder]
        if self._is_due("report", unreported(folders, None), "same scores"):
            return report(folders, None, self.say, self.progress)
        path = page_path(folders, None)
        self.say(str(path))
        return path

    def _is_due(self, stage: Stage, why: str, done: str) -> bool:
        """Say whether the stage runs."""
        self.say(f"{stage}: runs, since {why}" if why else f"{stage}: done ({done})")
        return bool(why)

    def _trained(self) -> Run:
        """The recipe's run, trained; its recipe says what is to be done with it now."""
        if self.run is None:
            from synapse_diffusion.train import find_state

            run, why = find_state(self.recipe, self.name)
            if why:
                raise RunError(f"{run.folder}: is not trained ({why}); begin with --from train, or leave out --from")
            run.keep_recipe(self.recipe)
            self.run = run
        return self.run


def observer_shares(rows: Sequence[dict[str, Any]]) -> list[str]:
    """For each decoder, how much of the category observer's distance from chance it covers on test."""
    value = {
        (row["model"], row["k_repeats"]): row
        for row in rows
        if row["split"] == "test" and row["person"] == "all" and row["metric"] == "balanced_accuracy"
        if row["control"] == "none"
    }
    lines = []
    for (model, k), row in value.items():
        observer = value.get(("observer", k))
        if observer is None or model == "observer" or observer["value"] <= row["chance"]:
            continue
        share = (row["value"] - row["chance"]) / (observer["value"] - row["chance"])
        of = "single trials" if k == 1 else f"means of {k} repeats"
        lines.append(f"test, {of}: {model} covers {share:.0%} of the category observer's distance from chance")
    return lines

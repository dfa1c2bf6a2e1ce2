"""Scores and facts as tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from synapse_diffusion.cli.output import say, show

if TYPE_CHECKING:
    from synapse_diffusion.info import Info
    from synapse_diffusion.info import Table as Texts

HEALTH_LINES: Final = 8  # that info shows
PICTURE_METRICS: Final = (
    "pixcorr", "mean_colour", "two_way pixels", "two_way_within_category pixels", "two_way gist",
)  # fmt: skip
MAIN_METRICS: Final = {
    "classify": ("balanced_accuracy", "auc"),
    "questions": ("auc", "average_precision"),
    "retrieve": ("top1", "top5"),
}
"""What is shown of each task's scores, and what stands beside it."""


def print_seeds(rows: list[dict[str, Any]], folder: Path) -> None:
    """The main test score of each decoder over seeds."""
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
    show(table)
    for name in ("seeds.tsv", "seeds.json"):
        say(str(folder / name))


def _decoder(row: dict[str, Any]) -> str:
    """Which decoder, as what control, among how many images."""
    control = "" if row["control"] == "none" else f", {row['control'].replace('_', ' ')}"
    return str(row["model"]) + control + (f" of {row['gallery']}" if row["gallery"] else "")


def print_scores(rows: list[dict[str, Any]], folder: Path) -> None:
    """The main score of validation and test, single and averaged, of each decoder; then where the pictures are."""
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
    show(table)
    if any(row["note"] for row in rows):
        say("~: so few people are drawn again that the interval over people is rough (docs/reference/formats.md)")
    for line in observer_shares(rows):
        say(line)
    for path in sorted((folder / "figures").glob("*.png")):
        say(str(path))
    say(str(folder / "scores.json"))


def print_pictures(rows: list[dict[str, Any]], folder: Path) -> None:
    """Every source's figures over all people, then what the brain adds, and where the pictures are."""
    from rich.table import Table

    table = Table(title="reconstructions of the test images")
    for name in ("pictures from", "repeats", "metric", "value", "95 % interval", "chance", "p", "Holm"):
        table.add_column(name, justify="left" if name in ("pictures from", "metric") else "right")
    for row in rows:
        if row["person"] != "all" or row["metric"] not in PICTURE_METRICS:
            continue
        interval = "" if row["low"] is None else f"{row['low']:.3f} .. {row['high']:.3f}"
        p, holm = ("" if row.get(name) is None else f"{row[name]:.4f}" for name in ("p", "p_holm"))
        values = (f"{row['value']:.3f}", interval, f"{row['chance']:.3f}", p, holm)
        table.add_row(row["model"].replace("_", " "), str(row["k_repeats"] or ""), row["metric"], *values)
    show(table)
    for path in sorted(folder.glob("*.png")):
        say(str(path))


def print_info(found: Info) -> None:
    """Facts, tables, and what is wrong."""
    print_facts(f"{found.kind}: {found.path}", found.facts, found.tables)
    say("health: " + ("" if found.health else "nothing wrong found"))
    for line in found.health[:HEALTH_LINES]:
        say(f"- {line}")
    if (more := len(found.health) - HEALTH_LINES) > 0:
        say(f"- and {more} more like these")


def print_facts(title: str, facts: Mapping[str, str], tables: Sequence[Texts] = ()) -> None:
    """Facts by name, then tables; texts that are not ours are shown as they are."""
    from rich.table import Table
    from rich.text import Text

    listed = Table("", "", title=Text(title), title_justify="left", show_header=False, box=None)
    for name, value in facts.items():
        listed.add_row(Text(name, style="bold"), Text(value))
    show(listed)
    for part in tables:
        table = Table(title=Text(part.title), title_justify="left")
        for k, name in enumerate(part.columns):
            table.add_column(Text(name), justify="right" if k and part.numbers else "left")
        for row in part.rows:
            table.add_row(*(Text(value) for value in row))
        show(table)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("split", "person", "model", "k_repeats", "control", "gallery"))

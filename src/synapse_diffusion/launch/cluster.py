"""What a site wants of its jobs: `cluster.toml`, and the same by option."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from synapse_diffusion.errors import SettingsError

STAGES: Final = ("convert", "embed", "train", "generator", "reconstruct", "evaluate", "report")
ALL: Final = "all"
DEFAULT: Final = Path("cluster.toml")
OURS: Final = ("dependency", "parsable", "wrap", "export", "job-name", "output", "signal", "requeue", "no-requeue")
"""sbatch's options that chain and scripts set themselves."""
Value = str | int | float | bool


@dataclass(frozen=True)
class Cluster:
    """sbatch's long options by stage (`all`: for each), and a file that every job sources first."""

    options: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    setup: str = ""

    def of(self, stage: str) -> list[str]:
        """The options of one stage's job, as sbatch takes them; those of the stage go before those of all."""
        found = {**self.options.get(ALL, {}), **self.options.get(stage, {})}
        return [f"--{name}" if value is True else f"--{name}={value}" for name, value in found.items() if value != ""]


def load_cluster(path: Path | None, overrides: Sequence[str]) -> Cluster:
    """Read `path` (or cluster.toml, where there is one), then `overrides`: `stage.option=value` or `option=value`.

    Raises `SettingsError` for another table than a stage's, and for what is no option's value.
    """
    tree: dict[str, Any] = {}
    where = path or DEFAULT
    if path is not None or where.is_file():
        try:
            tree = tomllib.loads(where.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"{where}: {error.strerror}; give a TOML file of sbatch's options") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{where}: not valid TOML: {error}") from None
    setup = str((where.parent / Path(str(tree.pop("setup"))).expanduser()).resolve()) if "setup" in tree else ""
    if setup and not Path(setup).is_file():
        raise SettingsError(f"{where}: setup: there is no file {setup}; give one with shell commands")
    options = {stage: _options(where, stage, table) for stage, table in tree.items()}
    for override in overrides:
        key, equals, value = override.partition("=")
        stage, dot, name = key.strip().rpartition(".")
        if not (equals and name):
            raise SettingsError(f"--slurm {override}: give it as option=value or stage.option=value")
        stage, text = stage if dot else ALL, value.strip()
        table = {name: {"true": True, "false": False}.get(text, text)}
        options[stage] = {**options.get(stage, {}), **_options("--slurm", stage, table)}
    return Cluster(options, setup)


def _options(where: Path | str, stage: str, table: Any) -> dict[str, Value]:
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: {stage} = {table!r}: options stand in a table, e.g. [{ALL}] or [train]")
    if stage not in (ALL, *STAGES):
        near = difflib.get_close_matches(stage, (ALL, *STAGES), n=1, cutoff=0.0)[0]
        raise SettingsError(f"{where}: [{stage}]: no such stage; nearest is {near}")
    for name, value in table.items():
        if name in OURS or not re.fullmatch("[a-z][a-z-]*", name):
            raise SettingsError(f"{where}: {stage}.{name}: give a long option of sbatch, but none of {', '.join(OURS)}")
        if name == "array" and stage != "convert":
            raise SettingsError(
                f"{where}: {stage}.array: tasks would write one result; only convert is dealt over an array"
            )
        if name == "mem":
            raise SettingsError(f"{where}: {stage}.mem: the scripts ask for memory by mem-per-cpu; give that instead")
        if not isinstance(value, str | int | float):
            raise SettingsError(f"{where}: {stage}.{name} = {value!r}: give text, a number, true or false")
    return {name: "" if value is False else value for name, value in table.items()}

"""The command line: parse, call one function, print, exit code. Stages are imported inside their command."""

from __future__ import annotations

import sys

import typer

from synapse_diffusion.cli import data, jobs, runs
from synapse_diffusion.errors import SynapseError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Decode what was seen from EEG and MEG, and say how sure that is.",
)
for command in (
    data.download, data.simulate, data.convert, data.embed,
    runs.train, runs.tune, runs.evaluate, runs.predict, runs.adapt, runs.reconstruct, runs.run, runs.demo,
    data.export, data.info, runs.report,
    jobs.submit, jobs.status, jobs.where,
):  # fmt: skip
    app.command()(command)


def main() -> None:
    """Entry point: one line for a user's failure, and its exit code."""
    try:
        app(standalone_mode=True)
    except SynapseError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(error.exit_code)

"""The command line: parse, call one function, print, exit code. Stages are imported inside their command."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from synapse_diffusion.cli import data, jobs, output, runs
from synapse_diffusion.cli.words import command_line
from synapse_diffusion.errors import MissingError, SynapseError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Decode what was seen from EEG and MEG, and say how sure that is.",
)


@app.callback()
def options(
    log_json: Annotated[
        bool,
        typer.Option("--log-json", help="Nothing but JSON on standard output: one event a line."),
    ] = False,
) -> None:
    """Before the command's name."""
    if log_json:
        output.log_json(command_line())


for command in (
    data.download, data.simulate, data.convert, data.embed,
    runs.train, runs.tune, runs.evaluate, runs.predict, runs.adapt, runs.reconstruct, runs.run, runs.demo,
    data.export, data.info, runs.report,
    jobs.doctor,
    jobs.submit, jobs.status,
):  # fmt: skip
    app.command()(command)


def main() -> None:
    """Entry point: one line for a user's failure, and its exit code."""
    code = 1  # our bug, unless something else is said
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        raise
    except SynapseError as error:
        output.say_error(error)
        code = error.exit_code
        sys.exit(code)
    except OSError as error:
        if not error.filename:
            raise
        output.say_error(MissingError(f"{error.filename}: {error.strerror}; free this place, or name another one"))
        code = MissingError.exit_code
        sys.exit(code)
    finally:
        if output.events is not None:
            try:
                output.events.end(code)
            except BrokenPipeError:  # whoever was reading has gone; nor is there anything to be said at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

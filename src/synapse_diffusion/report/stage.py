"""Write the page: read the runs, fill the templates, one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from synapse_diffusion.config.tree import digest_of
from synapse_diffusion.errors import MissingError, SettingsError
from synapse_diffusion.report import words
from synapse_diffusion.report.contents import read_contents
from synapse_diffusion.report.sections import Page, page_of, side_by_side
from synapse_diffusion.store.files import file_digest, whole
from synapse_diffusion.types import Folder, Progress, Say, silent

HEAD: Final = 2000  # characters of a page in which its inputs stand


def page_path(folders: Sequence[Path], out: Path | None) -> Path:
    """Where the report of these runs is: `out`, RUN/report.html of one, report.html beside the first of several."""
    return out or (folders[0] if len(folders) == 1 else folders[0].resolve().parent) / "report.html"


def unreported(folders: Sequence[Path], out: Path | None) -> str:
    """Why the page is to be written; empty: it is there, of these scores."""
    try:
        head = page_path(folders, out).read_text(encoding="utf-8")[:HEAD]
    except OSError:
        return "there is none yet"
    return "" if f'content="{_inputs(folders)}"' in head else "scores, settings or the program changed"


def _inputs(folders: Sequence[Path]) -> str:
    """Digest of what the page is made of: runs' settings and scores, and this program's version."""
    files = [folder / name for folder in folders for name in ("recipe.toml", "provenance.json", "scores.json")]
    return digest_of(
        {"files": [file_digest(path) for path in files if path.exists()], "version": version("synapse-diffusion")}
    )


def report(
    folders: Folder | Sequence[Folder], out: Folder | None = None, say: Say = silent, progress: Progress = silent
) -> Path:
    """The report of scored runs as one HTML file (`page_path`); returns its path.

    Raises `RunError` where a folder is no scored run of a decoder, `SettingsError` for a folder as `out`,
    `MissingError` where it cannot be written.
    """
    given = [Path(one) for one in ([folders] if isinstance(folders, str | PathLike) else folders)]
    if not given:
        raise SettingsError("no run is given; name one or several folders of scored runs")
    paths = list({path.resolve(): path for path in given}.values())
    path = page_path(paths, Path(out) if out else None)
    if path.is_dir():
        raise SettingsError(f"--out {path}: a folder; name a file, e.g. {path / 'report.html'}")
    contents = [read_contents(one) for one in paths]
    pages: list[Page] = []
    for number, one in enumerate(contents):
        progress("reading runs", number, len(contents))
        pages.append(page_of(one, len(contents), say, progress))
    progress("reading runs", len(contents), len(contents))
    _write(_render(pages=pages, together=side_by_side(contents), inputs=_inputs(paths)), path)
    say(f"written: a report of {', '.join(one.name for one in contents)}; {path.stat().st_size / 1e6:.1f} MB")
    for one in contents:
        say(words.answer(one.headline[-1]))
    say(str(path))
    return path


def _render(**values: Any) -> str:
    loader = PackageLoader("synapse_diffusion.report")
    # every value is escaped, whatever the template's name; one that is not there is an error
    engine = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.globals["words"] = words
    engine.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    return engine.get_template("report.html").render(**values)


def _write(text: str, path: Path) -> None:
    """Whole or not there."""
    try:
        with whole(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MissingError(f"{path}: cannot be written: {error.strerror}; give another --out") from None

"""Sphinx: the pages of this folder, and what is made when they are built.

Settings and commands are written from the code, the API from docstrings, and the tutorial's figures by the demo.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from PIL import Image

import synapse_diffusion

HERE: Final = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for make_settings and keep_figures

project = "SynapseDiffusion"
author = "The SynapseDiffusion developers"
copyright = f"2026, {author}"
version = release = synapse_diffusion.__version__

extensions = [
    "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_parser", "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
]  # fmt: skip
exclude_patterns = ["_build", "_demo/*.md", "examples", "**/GALLERY_HEADER.rst"]
templates_path = ["_templates"]
default_role = "code"  # docstrings write `name`
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
highlight_language = "text"
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "SynapseDiffusion"
html_show_sourcelink = False
html_sidebars: dict[str, list[str]] = {page: [] for page in ("index", "tutorial", "results", "published")}
html_extra_path = ["_demo/extra"]
html_context = {"default_mode": "auto"}
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2, "footer_start": [], "footer_end": []}


sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "image_scrapers": ("keep_figures.keep_figures",),
    "capture_repr": ("_repr_html_", "__repr__"),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 1e9,
}


def write(path: Path, text: str) -> None:
    """Write what has changed, so that unchanged pages are not built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def run(*words: str, cwd: Path = HERE) -> str:
    """What a command of this Python prints. Raises `CalledProcessError` where it fails."""
    found = subprocess.run([sys.executable, "-m", *words], cwd=cwd, check=True, stdout=subprocess.PIPE)
    return found.stdout.decode()


def write_references() -> None:
    """Pages of all settings and of all commands."""
    import make_settings

    write(HERE / "reference/settings.md", make_settings.text())
    where = HERE / "_build/commands.md"
    where.parent.mkdir(exist_ok=True)
    run("typer", "synapse_diffusion.cli", "utils", "docs", "--name", "synapse-diffusion", "--output", str(where))
    text = where.read_text(encoding="utf-8").replace("# `synapse-diffusion`\n", "# Commands\n", 1)
    write(HERE / "reference/commands.md", text)


def make_demo() -> None:
    """Run the demo in the build folder, unless no code is newer, and keep what the tutorial shows of it."""
    place, shown = HERE / "_build/demo", HERE / "_demo"
    page = shown / "extra/demo-report.html"
    code = [p for p in Path(synapse_diffusion.__file__).parent.rglob("*.*") if p.suffix != ".pyc"]
    code.append(Path(__file__))
    if page.exists() and (place / "demo").exists() and page.stat().st_mtime > max(p.stat().st_mtime for p in code):
        return
    shutil.rmtree(place, ignore_errors=True)  # what another version of the code has done
    place.mkdir(parents=True)
    lines = run("synapse_diffusion", "demo", cwd=place).splitlines()
    tables = next(k for k, line in enumerate(lines) if line.strip() == "balanced accuracy")
    write(shown / "demo.txt", "\n".join(lines[tables:]) + "\n")
    write(shown / "bids.txt", run("synapse_diffusion", "info", "demo/bids", cwd=place))
    run("synapse_diffusion", "info", "demo/stores/demo", "--plot", "demo/evoked.png", cwd=place)
    [scores], [grid] = place.glob("demo/runs/demo-*/scores.json"), place.glob("demo/runs/*/*/grid_01.png")
    for figure in (place / "demo/evoked.png", grid, *(scores.parent / "figures").glob("*.png")):
        shutil.copyfile(figure, shown / figure.name)
    pictures = sorted((place / "demo/bids/stimuli").glob("*/*.jpg"))
    row = [Image.open(path) for path in pictures[:: len(pictures) // 12][:12]]
    sheet = Image.new("RGB", (12 * 68, 64), "white")
    for k, picture in enumerate(row):
        sheet.paste(picture.resize((64, 64)), (68 * k, 0))
    sheet.save(shown / "seen.png")
    shutil.copyfile(place / lines[-1], page)


def make(_: Any) -> None:
    """All of it."""
    write_references()
    make_demo()


def setup(app: Any) -> None:
    """What is made comes before pages are looked for."""
    (HERE / "_demo/extra").mkdir(parents=True, exist_ok=True)
    app.connect("builder-inited", make)

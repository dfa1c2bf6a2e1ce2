"""README and docs: code that is the code's, links that lead somewhere, settings that are there, pages that build; and
the demo, which is run when they are built."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
import typer
from markdown_it import MarkdownIt
from pydantic import BaseModel

from browser import CHROMIUM, browser
from synapse_diffusion.cli import app
from synapse_diffusion.config import Recipe, load_recipe, parse_recipe
from synapse_diffusion.errors import SettingsError
from synapse_diffusion.launch.cluster import load_cluster

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
MADE: Final = ("_build", "_demo", "gallery", "generated", "commands.md")
PAGES: Final = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    + [path for path in DOCS.rglob("*.md") if not set(MADE) & set(path.relative_to(DOCS).parts)]
)
ELSEWHERE: Final = {"source", "module", "hf", "git", "apt-get", "pre-commit", "bash"}
"""Programs that are not ours."""
STAGE_OF: Final = {
    "train_eeg": ("train", "eeg"), "train_meg": ("train", "meg"), "train_fusion": ("train", "fusion"),
    "train_generator": ("train", "generator"),
}  # fmt: skip
FILES: Final = {".py", ".toml", ".tsv", ".json", ".safetensors"}
UNNAMED: Final = re.compile(r"RECIPE|RUN|mine\.toml|.*/best\.toml")
"""Recipes of the reader's own."""
COMMANDS: Final[Any] = typer.main.get_command(app)


@dataclass(frozen=True)
class Block:
    """A code block of a page; an indented one, as in README, is for a shell."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
            if token.type in ("fence", "code_block"):
                language = token.info if token.type == "fence" else "bash"
                assert language, f"{page}: a block without a language"
                assert token.type == "fence" or page.parent == ROOT, f"{page}: indented block {token.content!r}"
                found.append(Block(page, (token.map or [0])[0] + 1, language, token.content))
    return [block for block in found if block.language in languages]


def commands(block: Block) -> Iterator[list[str]]:
    """Each command of a shell block as words: variables filled in, alternatives one by one, options' brackets off."""
    text = block.text.replace("\\\n", " ").replace("[--set ...]", "")
    given = re.compile(r'^(\w+)="(.*)"$', re.MULTILINE)
    known = {"PWD": "/here", "person": "02", **dict(given.findall(block.page.read_text(encoding="utf-8")))}
    for line in given.sub("", text).splitlines():
        line = re.sub(r"\$(\w+)", lambda name: known[name[1]], re.sub(r"^\s*(for .*; do|done)\s*$", "", line))
        reader = shlex.shlex(line, posix=True, punctuation_chars=";")
        reader.whitespace_split, reader.commenters = True, "#"
        for separator, part in itertools.groupby(reader, lambda word: word == ";"):
            if not separator:
                yield from map(list, itertools.product(*(_alternatives(word) for word in part)))


def _alternatives(word: str) -> list[str]:
    word = re.sub(r"^\[(.*?)\]?$|^([^\[]+)\]$", r"\1\2", word) if not word.startswith("split.") else word
    return [] if word == "..." else word.split("|") if re.fullmatch(r"[a-z0-9|]+", word) else [word.removesuffix("...")]


def check(words: list[str], where: str) -> None:
    """That a command is one: of ours its name, arguments, options, recipe and settings; of others what is ours."""
    program, *rest = words
    if program == "sbatch" or program.startswith("./slurm/"):
        at = next(k for k, word in enumerate(words) if "slurm/" in word)
        script = Path(words[at])
        assert (ROOT / script).exists(), f"{where}: {script}"
        return check_ours([*STAGE_OF.get(script.stem, (script.stem,)), *words[at + 1 :]], where)
    if program == "torchrun" or (program == "python" and rest[0] == "mine.py"):
        at = next(k for k, word in enumerate(words) if word in ("synapse_diffusion", "mine.py"))
        return check_ours(words[at + 1 :], where, whole=words[at] != "mine.py")
    if program.endswith("synapse-diffusion"):
        return check_ours(rest, where)
    if program == "python":
        text = (ROOT / rest[0]).read_text(encoding="utf-8")
        for word in rest[1:]:
            assert not word.startswith("--") or f'"{word}"' in text, f"{where}: {rest[0]} has no {word}"
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{where}: make {rest[0]}"
    elif program.endswith("pip"):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.search(r"\[(.*)\]", rest[-1])
        assert not named or set(named[1].split(",")) <= set(extras), f"{where}: {rest[-1]}"
    elif program == "pytest":
        assert (ROOT / rest[0]).exists(), f"{where}: {rest[0]}"
    else:
        assert program in ELSEWHERE, f"{where}: what is {program}?"


def check_ours(words: list[str], where: str, whole: bool = True) -> None:
    """`whole`: a recipe that comes with the package takes all the settings that are given."""
    name, *rest = words
    command = COMMANDS.commands[name]
    try:
        given: dict[str, Any] = command.make_context(name, rest).params
    except Exception as error:
        pytest.fail(f"{where}: {' '.join(words)}: {error}")
    settings = given.get("set_") or []
    for setting in settings:
        assert is_setting(setting.partition("=")[0]), f"{where}: no setting {setting}"
    recipe = given.get("recipe")
    if recipe and not UNNAMED.fullmatch(recipe):
        whole_ones = [setting for setting in settings if "=" in setting and whole]
        load_recipe(recipe, whole_ones)


def is_setting(key: str) -> bool:
    """Is there such a branch or key?"""
    model: Any = Recipe
    for name in key.split("."):
        if typing.get_origin(model) is dict:
            return True
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or name not in model.model_fields:
            return False
        model = model.model_fields[name].annotation
    return True


def test_shell_blocks_are_commands_that_exist() -> None:
    found = [(str(block), words) for block in blocks("bash") for words in commands(block)]
    assert len(found) > 80
    for where, words in found:
        check(words, where)


@pytest.mark.parametrize(
    "line",
    ["synapse-diffusion trian eeg demo", "synapse-diffusion train eeg demo --steps 3", "make dome",
     "synapse-diffusion run demo --set train.step=3", "synapse-diffusion run demos", "sbatch slurm/train.sh RECIPE",
     "synapse-diffusion run demo --set model.name=resnet", "synapse-diffusion convert fmri demo",
     "pip install 'synapse-diffusion[tuning]'", "python benchmarks/fusion.py FOLDER --fast"],
)  # fmt: skip
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    [words] = commands(Block(ROOT / "README.md", 1, "bash", line))
    with pytest.raises((AssertionError, KeyError, SettingsError, pytest.fail.Exception)):
        check(words, "here")


def test_toml_blocks_are_read_by_what_they_are_for(tmp_path: Path) -> None:
    found = blocks("toml")
    assert len(found) > 4
    for block in found:
        tree = tomllib.loads(block.text)
        if set(tree) <= set(Recipe.model_fields):
            parse_recipe(tree, where=str(block))
        else:
            (tmp_path / "setup.sh").touch()
            (tmp_path / "cluster.toml").write_text(re.sub(r"^setup = .*", 'setup = "setup.sh"', block.text))
            assert load_cluster(tmp_path / "cluster.toml", ())


def test_python_blocks_import_what_is_there() -> None:
    found = blocks("python")
    assert len(found) > 3
    for block in found:
        tree = ast.parse(block.text)
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(tree, str(block), "exec"))


def test_settings_that_are_named_exist() -> None:
    named = re.compile(rf"`((?:{'|'.join(Recipe.model_fields)})\.[a-z0-9_.]+)(?:\s?=[^`]*)?`")
    for page in PAGES:
        for key in named.findall(page.read_text(encoding="utf-8")):
            known = is_setting(key) or key in ("train.train", "train.judge") or Path(key).suffix in FILES
            assert known, f"{page.relative_to(ROOT)}: no setting {key}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in links(page):
            path, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target) or path.startswith("_demo/"):  # the latter: drawn when pages are built
                continue
            if "gallery/" in path:
                assert (DOCS / "examples" / f"{Path(path).name}.py").exists() or path.endswith("/index")
                continue
            there = (page.parent / unquote(path)).resolve() if path else page
            assert there.exists(), f"{page.relative_to(ROOT)}: {target}"
            assert not anchor or anchor in anchors(there), f"{page.relative_to(ROOT)}: {target}"


def links(page: Path) -> list[str]:
    inline = [token for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()) if token.children]
    inside = [child for token in inline for child in token.children or []]
    return [str(c.attrs.get("href") or c.attrs.get("src")) for c in inside if c.type in ("link_open", "image")]


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and Sphinx make them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


class _Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        self.names |= {value for value in (of.get("id"), of.get("name")) if value}
        target = of.get("href") if tag == "a" else of.get("src") if tag in ("img", "script") else None
        self.targets += [target] if target else []


@pytest.fixture(scope="module")
def site() -> Path:
    """The documentation, built as `make docs` builds it."""
    for package in ("sphinx", "pydata_sphinx_theme", "numpydoc", "myst_parser", "sphinx_gallery", "sphinx_copybutton"):
        pytest.importorskip(package, reason="the documentation is built with pip extra `docs`")
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", str(DOCS), str(DOCS / "_build/html")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return DOCS / "_build/html"


@pytest.mark.slow
def test_the_demo_decodes_and_draws(site: Path) -> None:
    place = DOCS / "_build/demo"
    assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) < 1.5e9
    out = (DOCS / "_demo/demo.txt").read_text(encoding="utf-8")
    assert "of the category observer's distance from chance" in out
    assert "generator: done" in out  # it was trained beside the decoders
    page = place / out.splitlines()[-1]
    assert page.name == "report.html"
    assert page.stat().st_size < 8e6
    text = page.read_text(encoding="utf-8")
    assert "more than without a brain.</b>" in text
    assert 0 < text.find("<b>Two-way identification, by pixels</b>") < text.find("Other figures of the pictures")
    assert (site / "demo-report.html").read_bytes() == page.read_bytes()
    averaged = {row["model"]: row for row in scores("demo") if row["metric"] == "balanced_accuracy"}
    assert averaged["compact"]["value"] >= averaged["linear"]["value"] - 1e-9
    assert averaged["compact"]["p"] < 0.01
    assert averaged["observer"]["value"] >= averaged["compact"]["value"]
    drawn = {(row["model"], row["metric"]): row for row in scores("demo_pictures") if row["task"] == "reconstruct"}
    for metric in ("pixcorr", "two_way pixels"):
        assert drawn["brain", metric]["p"] < 0.01
        assert drawn["brain - none", metric]["low"] > 0
        assert drawn["true", metric]["value"] > drawn["brain", metric]["value"]
    assert drawn["brain", "mean_colour"]["p"] < 0.01
    assert drawn["none", "two_way pixels"]["low"] < 0.5 < drawn["none", "two_way pixels"]["high"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_the_demos_report_in_a_browser(site: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as page:
        for width in (1280, 400):
            page.open(site / "demo-report.html", width)
            page.check()
            page.screenshot(tmp_path / f"{width}.png")
            assert (tmp_path / f"{width}.png").stat().st_size > 500_000


def scores(name: str) -> list[dict[str, Any]]:
    """Of the demo: everyone's test, means of repeats, no controls but pictures'."""
    [path] = DOCS.glob(f"_build/demo/demo/runs/{name}-*/scores.json")  # a generator's run has none
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    mine = [row for row in rows if row["split"] == "test" and row["person"] == "all" and row["k_repeats"] != 1]
    return [row for row in mine if row["task"] == "reconstruct" or row["control"] == "none"]


@pytest.mark.slow
def test_the_documentation_builds_and_its_links_resolve(site: Path) -> None:
    pages = {
        path: _Page(path)
        for path in site.rglob("*.html")
        if path.name != "demo-report.html" and "_static" not in path.parts
    }
    assert {"tutorial.html", "howto", "gallery", "reference", "explanation", "published.html", "results.html"} <= {
        path.name for path in site.iterdir()
    }
    for path, page in pages.items():
        for target in page.targets:
            if re.match(r"[a-z]+:|//", target) or target == "#":
                continue
            file, _, anchor = target.split("?")[0].partition("#")
            there = (path.parent / unquote(file)).resolve() if file else path
            assert there.exists(), f"{path}: {target}"
            assert not anchor or there not in pages or unquote(anchor) in pages[there].names, f"{path}: {target}"


@pytest.mark.slow
def test_every_setting_and_command_is_in_the_reference(site: Path) -> None:
    settings = (site / "reference/settings.html").read_text(encoding="utf-8")
    text = re.sub("<[^>]+>", "", settings)

    def keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            inner = field.annotation
            branch = isinstance(inner, type) and issubclass(inner, BaseModel)
            of = typing.cast("type[BaseModel]", inner)
            yield from keys(of, f"{prefix}{name}.") if branch else [f"{prefix}{name}"]

    missing = [key for key in keys(Recipe, "") if key not in text]
    assert not missing
    listed = re.sub("<[^>]+>", "", (site / "reference/commands.html").read_text(encoding="utf-8"))
    assert all(f"synapse-diffusion {name}" in listed for name in COMMANDS.commands)


@pytest.mark.slow
def test_python_of_the_pages_runs_on_the_demo(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(DOCS / "_build/demo/demo", tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    for page in ("tutorial.md", "howto/own_encoder.md"):
        space: dict[str, Any] = {}
        for block in blocks("python"):
            if block.page == DOCS / page:
                exec(compile(block.text, str(block), "exec"), space)
    assert (tmp_path / "embeddings/mine/rows.tsv").exists()
    [own] = [block for block in blocks("python") if block.page == DOCS / "howto/decoder.md"]
    Path("mine.py").write_text(own.text, encoding="utf-8")
    lines = len(own.text[own.text.index("class ") : own.text.index("if __name__")].strip().splitlines())
    assert lines <= 30
    few = ("train.members=1", "evaluate.controls=[]", "evaluate.permutations=50", "evaluate.bootstrap=50")
    quick = [word for setting in few for word in ("--set", setting)]
    words = [sys.executable, "mine.py", "run", "demo", "--set", "model.name=bins", "--set", "train.learning_rate=1e-3"]
    done = subprocess.run([*words, *quick], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [score] = re.findall(r"test +│ all +│ bins +│ +12 │ +([\d.]+)", done.stdout)
    assert float(score) > 2 / 12


@pytest.mark.slow
def test_commands_of_the_tutorial_run_on_the_demo(site: Path, tmp_path: Path) -> None:
    """All but the first `make demo`; trainings are cut short."""
    shutil.copytree(DOCS / "_build/demo/demo", tmp_path / "demo")
    few = (
        "train.members=1",
        "train.steps=20",
        "evaluate.controls=[]",
        "evaluate.permutations=50",
        "evaluate.maps=false",
    )
    quick = [word for setting in few for word in ("--set", setting)]
    of_tutorial = [block for block in blocks("bash") if block.page == DOCS / "tutorial.md"]
    lines = [words for block in of_tutorial for words in commands(block) if words[0] == "synapse-diffusion"]
    assert len(lines) == 9
    for _, *words in lines:
        done = subprocess.run(
            [sys.executable, "-m", "synapse_diffusion", *words, *(quick if words[0] == "run" else [])],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stderr}"
        if words == ["demo"]:  # it is there already
            assert not [line for line in done.stdout.splitlines() if "done" not in line and line.startswith("train: ")]

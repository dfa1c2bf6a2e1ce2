"""The page is whole in itself, says what the files say, and shows names from data as text."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from browser import CHROMIUM, browser
from conftest import quiet, small
from synapse_diffusion.errors import RunError, SettingsError
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.report import report
from synapse_diffusion.report.sections import _bars
from synapse_diffusion.runs import Run
from synapse_diffusion.train import train

BAD = "<script>alert(1)</script>"
RETRIEVE = ("target.task=retrieve", 'embed.encoder="gist"', "target.layers=both", "target.projection=8")
MEGABYTE = 1_000_000


class Page(HTMLParser):
    """What a browser would load, run and show."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.scripts = 0
        self.shown = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.images += [values] if tag == "img" else []
        self.scripts += tag == "script"
        self.ids |= {values["id"] or ""} if "id" in values else set()
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.shown += data


@pytest.fixture(scope="module")
def scored(study: Path) -> Run:
    """Categories."""
    run = train(small(study, "evaluate.maps=true"), "report", "synapse-diffusion run report", quiet, quiet)
    evaluate(run.folder, quiet, quiet)
    return run


@pytest.fixture(scope="module")
def found(study: Path) -> Run:
    """Pictures to be found, with drawings beside them as `reconstruct` writes them."""
    from synapse_diffusion.embed import embed

    recipe = small(study, *RETRIEVE)
    embed(recipe, quiet, quiet)
    run = train(recipe, "report-found", "synapse-diffusion run report", quiet, quiet)
    evaluate(run.folder, quiet, quiet)
    images = sorted(set(run.splits.loc[run.splits["split"] == "test", "image_id"]))
    draw(run.folder / "reconstruction-00000000/pictures", images)
    return run


def draw(folder: Path, images: list[str], repeats: tuple[int, ...] = (1, 4)) -> None:
    folder.mkdir(parents=True)
    (folder.parent / "columns.json").write_text("{}")  # written when pictures are scored
    rng = np.random.default_rng(0)
    sources = {"brain": ("01", "02"), "shuffled": ("01", "02"), "none": ("all",), "true": ("all",), "nearest": ("01",)}
    for source, people in sources.items():
        for person in people:
            for k in repeats if person != "all" else (0,):
                place = folder / source / person / f"k{k}"
                place.mkdir(parents=True)
                for image in images:
                    noise = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                    Image.fromarray(noise).save(place / f"{image}-0.png")


def copy(run: Run, folder: Path) -> Path:
    shutil.copytree(run.folder, folder)
    return folder


def test_page_of_categories(scored: Run) -> None:
    path = report([scored.folder], None, quiet, quiet)
    page = Page(path)
    assert path == scored.folder / "report.html"
    assert {
        "r1-confusion",
        "r1-curve",
        "r1-maps",
        "r1-scores",
        "r1-each",
        "r1-quality",
        "r1-checks",
        "r1-made",
    } <= page.ids
    assert not page.ids & {"r1-found", "r1-drawn", "r1-fusion", "r1-time"}
    row = next(r for r in scored.read_scores() if r["split"] == "test" and r["model"] == "compact")
    assert f"{100 * row['value']:.1f} %, 95 % interval {100 * row['low']:.1f} % to" in page.shown
    n = scored.splits[scored.splits["split"] == "test"]["trial_id"].nunique()
    assert f"{n} test trials" in page.shown
    assert "0 of 6 test concepts shared" in page.shown
    assert "2 of 2 recordings unchanged since training" in page.shown
    assert "synapse-diffusion run report" in page.shown


def test_page_of_pictures(found: Run) -> None:
    page = Page(report([found.folder], None, quiet, quiet))
    assert {"r1-found", "r1-drawn", "r1-repeats"} <= page.ids
    assert "r1-confusion" not in page.ids
    images = set(found.splits.loc[found.splits["split"] == "test", "image_id"])
    alts = [image["alt"] or "" for image in page.images]
    for source in ("seen", "brain sub-01, single trials", "brain sub-02, means of 4 repeats", "no brain", "shuffled"):
        assert {alt.split(": ")[0] for alt in alts if source in alt} >= images
    decisions = pd.read_csv(found.folder / "predictions/test.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert (decisions["top5"].str.split("/").str[0] == decisions["predicted"]).all()
    first = decisions[decisions["model"] == "compact"].sort_values("k_repeats").iloc[-1]
    assert set(first["top5"].split("/")) <= images


def test_a_reconstruction_that_was_stopped_is_not_shown(found: Run, tmp_path: Path) -> None:
    """Scores are of the one that was scored last."""
    folder = copy(found, tmp_path / "run")
    draw(folder / "reconstruction-11111111/pictures", ["elsewhere"])
    (folder / "reconstruction-11111111/columns.json").unlink()
    page = Page(report([folder], None, quiet, quiet))
    assert "r1-drawn" in page.ids
    assert "elsewhere" not in page.shown


def test_pictures_are_no_part_of_the_decoders_family(scored: Run, tmp_path: Path) -> None:
    folder = copy(scored, tmp_path / "run")
    rows = scored.read_scores()
    n = sum(row["p_holm"] is not None and row["person"] == "all" for row in rows)
    drawn = [{**row, "task": "reconstruct", "metric": "pixcorr", "model": "brain"} for row in rows]
    (folder / "scores.json").write_text(json.dumps({"version": 1, "rows": rows + drawn}))
    assert f"; {n} tests in the family" in Page(report([folder], None, quiet, quiet)).shown


def test_bars_of_differences_begin_at_zero() -> None:
    row = {"value": -0.145, "low": -0.229, "high": -0.07, "chance": 0.0, "metric": "two_way gist"}
    below, above = _bars([row, {**row, "value": 0.031, "low": -0.011, "high": 0.072}], ["a", "b"])
    assert below.value < below.zero == above.zero < above.value
    assert below.zero == below.chance


def test_nothing_comes_from_elsewhere(scored: Run, found: Run, tmp_path: Path) -> None:
    path = report([scored.folder, found.folder, scored.folder], tmp_path / "both.html", quiet, quiet)
    page = Page(path)
    assert {"r1-run", "r2-run"} <= page.ids
    assert "r3-run" not in page.ids  # a run that is given twice
    assert "2 runs" in page.shown
    inside = {address[1:] for address in page.addresses if address.startswith("#")}
    assert inside <= page.ids
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert all(image["alt"] and (image["src"] or "").startswith("data:image/") for image in page.images)
    assert not re.search(r"https?://|@import|url\(", path.read_text())
    assert not list(tmp_path.glob("*.part"))
    assert path.stat().st_size < 8 * MEGABYTE


def test_names_from_data_are_text(scored: Run, found: Run, tmp_path: Path) -> None:
    classes, pictures = copy(scored, tmp_path / BAD.replace("/", "⁄")), copy(found, tmp_path / "pictures")
    values = json.loads((classes / "provenance.json").read_text())
    values["classes"][0] = values["command"] = BAD
    (classes / "provenance.json").write_text(json.dumps(values))
    table = pd.read_csv(pictures / "predictions/test.tsv", sep="\t", dtype=str, keep_default_na=False)
    table["image_id"] = table["top5"] = table["person"] = '"><script>alert(1)<' + "script>"
    table.to_csv(pictures / "predictions/test.tsv", sep="\t", index=False)
    page = Page(report([classes, pictures], tmp_path / "out.html", quiet, quiet))
    assert page.scripts == 1  # the page's own
    assert page.shown.count(BAD) >= 2
    assert '"><script>alert(1)<script>, sub-' in page.shown


def test_faults_are_told(scored: Run, tmp_path: Path) -> None:
    """A picture on both sides, a control above chance, a recording that changed: each fails in words."""
    folder = copy(scored, tmp_path / "run")
    table = pd.read_csv(folder / "splits.tsv", sep="\t", dtype=str, keep_default_na=False)
    train_rows, test_rows = (table.index[table["split"] == split] for split in ("train", "test"))
    table.loc[train_rows[0], ["image_id", "concept"]] = table.loc[test_rows[0], ["image_id", "concept"]]
    table.to_csv(folder / "splits.tsv", sep="\t", index=False)
    rows = scored.read_scores()
    changed = [{**row, "p": 1e-6} if row["control"] == "noise" else row for row in rows]
    (folder / "scores.json").write_text(json.dumps({"version": 1, "rows": changed}))
    values = json.loads((folder / "provenance.json").read_text())
    values["stores"] = dict.fromkeys(values["stores"], "0")
    (folder / "provenance.json").write_text(json.dumps(values))
    text = (report([folder], None, quiet, quiet)).read_text()
    failed = re.findall(r'<li class="fail">.*?<b>(.*?)\.</b> (.*?)</span></li>', text)
    told = dict(failed)
    assert told["No picture is on two sides of a split"].startswith("1 shared")
    assert told["Test concepts are in no other part, nor in the final fit"].startswith("1 of 6")
    assert "noise" in told["Controls without information are at chance"]
    assert told["The recordings are those of the training"].startswith("0 of 2")


def test_wrong_input_is_one_sentence(scored: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run"):
        report([tmp_path], None, quiet, quiet)
    unscored = copy(scored, tmp_path / "unscored")
    (unscored / "scores.json").unlink()
    with pytest.raises(RunError, match=r"not scored yet; run `synapse-diffusion evaluate .*unscored` first"):
        report([unscored], None, quiet, quiet)
    (unscored / "predictions/validation.tsv").unlink()
    with pytest.raises(RunError, match="training is unfinished"):
        report([unscored], None, quiet, quiet)
    with pytest.raises(SettingsError, match="no run is given"):
        report([])
    with pytest.raises(SettingsError, match="a folder; name a file"):
        report([scored.folder], tmp_path, quiet, quiet)


def test_without_recordings_and_pictures(found: Run, tmp_path: Path) -> None:
    """A run that was moved to another machine: what it holds is told, what it lacks is said."""
    folder = copy(found, tmp_path / "moved")
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(re.sub(r'(bids|stores) = ".*"', r'\1 = "nowhere"', text))
    page = Page(report([folder], None, quiet, quiet))
    assert "0 of 2 recordings unchanged since training; 2 not found here" in page.shown
    assert "Pictures are not shown: nowhere/stimuli: no such folder" in page.shown
    assert "r1-found" in page.ids


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser(scored: Run, found: Run, tmp_path: Path, width: int) -> None:
    path = report([found.folder, scored.folder], tmp_path / "page.html", quiet, quiet)
    with browser(tmp_path / "profile") as page:
        for scripts in (False, True):
            page.open(path, width, scripts=scripts)
            page.check()
            shown = page.value("[...document.querySelectorAll('.all .version')].filter(v => v.offsetHeight > 0).length")
            every = page.value("document.querySelectorAll('.all .version').length")
            assert shown < every if scripts else shown == every
        page.screenshot(tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as shot:
            assert shot.height > 2000
            assert len(shot.convert("RGB").resize((200, 400)).getcolors(80_000) or ()) > 100


@pytest.mark.slow
def test_a_recording_of_full_size(found: Run, tmp_path: Path) -> None:
    """24,648 trials and 200 pictures, drawn from three numbers of repeats, by all people and controls: noise, which
    compresses worst. Under 8 MB, written and opened in a time that nobody minds."""
    folder, images = copy(found, tmp_path / "run"), [f"image_{k:03d}" for k in range(200)]
    shutil.rmtree(folder / "reconstruction-00000000")
    draw(folder / "reconstruction-00000000/pictures", images, (1, 4, 12))
    draw_seen(tmp_path / "stimuli", images)
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(re.sub(r'images = ".*"', f'images = "{tmp_path / "stimuli"}"', text))
    table = pd.read_csv(folder / "splits.tsv", sep="\t", dtype=str, keep_default_na=False)
    table = table.iloc[np.arange(24_648) % len(table)].assign(trial_id=[f"trial_{k}" for k in range(24_648)])
    table.to_csv(folder / "splits.tsv", sep="\t", index=False)
    path = report([folder], None, quiet, quiet)
    assert path.stat().st_size < 8 * MEGABYTE
    page = Page(path)
    assert sum((image["alt"] or "").startswith("image_199: ") for image in page.images) == 1 + 3 * 4 + 2
    if CHROMIUM is None:
        pytest.skip("needs Chromium to be opened (Debian: apt-get install chromium)")
    with browser(tmp_path / "profile") as chromium:
        chromium.open(path, 1280)
        took = chromium.value("performance.timing.loadEventEnd - performance.timing.navigationStart")
        assert chromium.complaints() == []
    assert took < 2000


def draw_seen(folder: Path, images: list[str]) -> None:
    rng = np.random.default_rng(1)
    folder.mkdir()
    for image in images:
        small_noise = Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
        small_noise.resize((600, 400)).save(folder / f"{image}.jpg")

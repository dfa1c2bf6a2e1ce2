"""Settings: all faults at once, each with file, key, value and the nearest key."""

from __future__ import annotations

import sys
import tomllib
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from synapse_diffusion.config import ModelSettings, Recipe, dump_recipe, load_recipe, parse_recipe
from synapse_diffusion.errors import SettingsError

DOCS = Path(__file__).parents[1] / "docs"
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[train]\nstepps = 3\nsteps = 'three'\n[convert]\nlowpass_hz = 300.0\n[vieww]\nx = 1\n")
    with pytest.raises(SettingsError) as caught:
        load_recipe(path, ["model.widht=3", "data.people=[1]"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert f"{path}: train.stepps = 3: no such key; nearest is train.steps" in lines
    assert "--set model.widht=3: model.widht = 3: no such key; nearest is model.width" in lines
    assert any("train.steps = 'three'" in line and "integer" in line for line in lines)
    assert any("300.0 is above half of sfreq = 250.0" in line for line in lines)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_load_by_name_and_survive_writing(path: Path) -> None:
    recipe = load_recipe(path.stem)
    assert parse_recipe(tomllib.loads(dump_recipe(recipe))) == recipe


def test_overrides_take_toml_or_bare_text() -> None:
    recipe = parse_recipe(
        {}, ["data.people=01,02", "data.runs=3", "view.baseline=[-0.1, 0.0]", "train.seed=4", "paths.bids=/x/y"]
    )
    assert recipe.data.people == ("01", "02")
    assert recipe.data.runs == ("3",)
    assert recipe.view.baseline == (-0.1, 0.0)
    assert recipe.train.seed == 4
    assert parse_recipe({"view": {"baseline": [-0.1, 0.0]}}, ["view.baseline=none"]).view.baseline is None


def test_a_setting_of_another_decoder_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"model: .*layers is a setting of atm, brain_module, not of compact"):
        parse_recipe({}, ["model.layers=2"])
    with pytest.raises(SettingsError, match="sensor_dropout is a setting of brain_module, not of tsconv"):
        parse_recipe({}, ["model.name=tsconv", "model.sensor_dropout=0.1"])
    given = parse_recipe({}, ["model.name=atm", "model.layers=2", "model.dropout=0.0"]).model
    assert given.given() == {"layers": 2, "dropout": 0.0}
    assert parse_recipe({}, ["model.dropout=none"]).model.given() == {}


def test_digest_follows_what_a_result_depends_on() -> None:
    base = parse_recipe({})
    assert parse_recipe({}, ["execution.device=cpu", "paths.runs=elsewhere"]).digest() == base.digest()
    assert parse_recipe({}, ["train.seed=1"]).digest() != base.digest()


def test_every_setting_is_read_somewhere() -> None:
    source = Path(__file__).parents[1] / "src/synapse_diffusion"
    code = "\n".join(p.read_text() for p in source.rglob("*.py") if "config" not in p.parts)
    models = "\n".join(p.read_text() for p in (source / "models").glob("*.py"))
    for name in set(ModelSettings.model_fields) - {"name"}:  # these go by name to the decoder that is called
        assert f" {name}: " in models, f"no decoder takes {name}"
    for key, branch in Recipe.model_fields.items():
        if key == "model":
            continue
        for name in _names(typing.cast("type[BaseModel]", branch.annotation)):
            assert f".{name}" in code or f'"{name}"' in code, f"{branch.annotation}: nobody reads {name}"


def test_the_settings_page_is_current() -> None:
    sys.path.insert(0, str(DOCS))
    import make_settings

    assert (DOCS / "reference/settings.md").read_text(encoding="utf-8") == make_settings.text()
    assert "|  |" not in make_settings.text(), "a setting without a docstring"


def _names(model: type[BaseModel]) -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        names += _names(inner) if isinstance(inner, type) and issubclass(inner, BaseModel) else [name]
    return names

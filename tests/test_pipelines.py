"""Pictures by pretrained pipelines: tiny ones of the real classes, saved as real ones are, against diffusers itself."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import quiet, small
from synapse_diffusion.config import PretrainedSettings, Recipe, parse_recipe
from synapse_diffusion.embed import embed
from synapse_diffusion.encoders.pipeline_files import find_pipeline
from synapse_diffusion.encoders.pipelines import Pipeline, load_pipeline
from synapse_diffusion.errors import DataError, MissingError, SettingsError, StoreError, SynapseError
from synapse_diffusion.reconstruct import reconstruct
from synapse_diffusion.reconstruct.pretrained import CLIP_MEAN, Pretrained, draws_of
from synapse_diffusion.runs import Run
from synapse_diffusion.store.embeddings import EmbeddingTable, open_embeddings, write_embeddings
from synapse_diffusion.store.pictures import load_picture
from synapse_diffusion.train import train
from synapse_diffusion.training.conditions import Conditions
from tiny_pipelines import SIDE, WIDTH, make_pipelines

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore::FutureWarning:diffusers")
CPU = torch.device("cpu")
KINDS = ("unclip", "ip_adapter", "kandinsky")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pipelines(tmp_path_factory.mktemp("pipelines"))


def settings_of(models: Path, kind: str, **more: Any) -> PretrainedSettings:
    places = {
        "unclip": {"weights": models / "unclip"},
        "ip_adapter": {"weights": models / "sdxl", "adapter": models / "adapter.safetensors"},
        "kandinsky": {"weights": models / "kandinsky"},
    }[kind]
    if kind != "unclip":
        places["encoder"] = models / "unclip/image_encoder"
    return PretrainedSettings.model_validate(
        {"pipeline": kind, **{name: str(place) for name, place in places.items()}, **more}
    )


def loaded(settings: PretrainedSettings) -> Pipeline:
    return load_pipeline(find_pipeline(settings, CPU), settings, CPU)


def some_vectors(n: int) -> NDArray[np.float32]:
    return 3 * np.random.default_rng(5).standard_normal((n, WIDTH)).astype(np.float32)


def painted(pipeline: Pipeline, vectors: NDArray[np.float32], seeds: list[int], **more: Any) -> torch.Tensor:
    unknown = np.full(WIDTH, 0.5 * (pipeline.settings.pipeline == "kandinsky"), np.float32)
    more = {"steps": 3, "guidance": 2.0, **more}
    return pipeline.paint(vectors, unknown, [draws_of(0, "image", k) for k in seeds], **more)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_of_its_vector_and_seed_alone(models: Path, kind: str) -> None:
    pipeline = loaded(settings_of(models, kind))
    vectors = some_vectors(3)
    together = painted(pipeline, vectors, [1, 2, 1])
    assert together.shape == (3, 3, SIDE, SIDE)
    assert 0 <= together.min() < together.max() <= 1
    for row, seed in enumerate([1, 2, 1]):
        alone = painted(pipeline, vectors[row : row + 1], [seed])
        assert torch.allclose(alone[0], together[row], atol=1e-4)
        other = painted(pipeline, vectors[row : row + 1], [seed + 5])
        assert (other - alone).abs().max() > 0.01
    assert (together[0] - together[2]).abs().max() > 1e-3  # same noise, another vector


@pytest.mark.parametrize("kind", KINDS)
def test_no_vector_is_what_guidance_goes_away_from(models: Path, kind: str) -> None:
    """u + g (u - u) = u: guidance cannot change a picture of what is unknown, and changes all others."""
    pipeline = loaded(settings_of(models, kind))
    unknown = np.full((1, WIDTH), 0.5 * (kind == "kandinsky"), np.float32)
    for vectors, changes in ((unknown, False), (some_vectors(1), True)):
        a, b = (painted(pipeline, vectors, [3], guidance=g) for g in (1.5, 9.0))
        assert ((a - b).abs().max() > 1e-2) == changes


def tiny_recipe(folder: Path, models: Path, *more: str) -> Recipe:
    return small(
        folder, "target.task=retrieve", "target.layers=projection", "embed.encoder=transformers",
        f"embed.weights={models / 'unclip/image_encoder'}", "embed.layers=block_1,projection", "train.steps=6",
        "train.checks=2", "train.refit=false", "generator.size=16", "generator.components=6", "generator.low_side=4",
        "generator.low_components=8", "reconstruct.sampling_steps=3", "reconstruct.samples=1",
        "reconstruct.k_repeats=[0]", "reconstruct.guidance=2.0", *more,
    )  # fmt: skip


def chosen(settings: PretrainedSettings, **more: Any) -> list[str]:
    given = {name: value for name, value in settings if value != PretrainedSettings.model_fields[name].default}
    return [f"pretrained.{name}={value}" for name, value in {**given, **more}.items()]


@pytest.fixture(scope="module")
def made(study: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A decoder's run; its folder also has the embedding table."""
    folder = tmp_path_factory.mktemp("drawn")
    for name in ("bids", "stores"):
        (folder / name).symlink_to(study / name)
    recipe = tiny_recipe(folder, models)
    embed(recipe, quiet, quiet)
    return folder, train(recipe, "pictures", "test", quiet, quiet)


Drawn = dict[str, tuple[Path, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def drawn(made: tuple[Path, Run], models: Path) -> Drawn:
    return {kind: reconstruct(made[1].folder, chosen(settings_of(models, kind)), quiet, quiet) for kind in KINDS}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*-*.png"))}


@pytest.mark.parametrize("kind", KINDS)
def test_the_ceiling_is_the_published_pipeline_given_the_picture(
    made: tuple[Path, Run], drawn: Drawn, models: Path, kind: str
) -> None:
    """Scale, preprocessing and noise in one: pictures drawn from true vectors are those of diffusers' own pipeline that
    is given the picture itself."""
    image = sorted((drawn[kind][0] / "pictures/true/n-a").rglob("*.png"))[0]
    seen = load_picture(next((made[0] / "bids/stimuli").rglob(f"{image.stem.removesuffix('-0')}.*")))
    theirs = asked_of_diffusers(models, kind, seen, draws_of(0, image.stem.removesuffix("-0"), 0))
    ours = np.asarray(load_picture(image))
    assert np.abs(ours - 255.0 * theirs).max() < 1.5


def asked_of_diffusers(models: Path, kind: str, seen: Any, generator: torch.Generator) -> NDArray[np.float32]:
    import diffusers
    import transformers as tr

    encoder = tr.CLIPVisionModelWithProjection.from_pretrained(models / "unclip/image_encoder")
    processor = tr.AutoImageProcessor.from_pretrained(models / "unclip/feature_extractor")
    more: dict[str, Any] = {
        "num_inference_steps": 3, "guidance_scale": 2.0, "generator": generator, "output_type": "np",
    }  # fmt: skip
    if kind == "unclip":
        pipe: Any = diffusers.StableUnCLIPImg2ImgPipeline.from_pretrained(models / "unclip")
        return np.asarray(pipe(image=seen, prompt="", **more).images[0])
    if kind == "ip_adapter":
        pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(
            models / "sdxl", image_encoder=encoder, feature_extractor=processor, add_watermarker=False
        )
        pipe.load_ip_adapter(str(models), subfolder="", weight_name="adapter.safetensors")
        return np.asarray(pipe(prompt="", negative_prompt="", ip_adapter_image=seen, **more).images[0])
    pipe = diffusers.KandinskyV22Pipeline.from_pretrained(models / "kandinsky")
    with torch.no_grad():
        vector = encoder(processor(images=seen, return_tensors="pt")["pixel_values"]).image_embeds
        negative = encoder(torch.zeros(1, 3, 32, 32)).image_embeds  # as get_zero_embed of the prior's pipeline
    size = {"height": SIDE, "width": SIDE}
    return np.asarray(pipe(image_embeds=vector, negative_image_embeds=negative, **size, **more).images[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_is_drawn_and_scored(made: tuple[Path, Run], drawn: Drawn, kind: str) -> None:
    folder, rows = drawn[kind]
    splits = made[1].splits
    images = set(splits.loc[splits["split"] == "test", "image_id"])
    for source, n in (("brain", 2), ("shuffled", 2), ("none", 1), ("true", 1)):
        found = sorted(path.stem for path in (folder / "pictures" / source).rglob("*.png"))
        assert found == sorted([f"{image}-0" for image in images] * n)
    assert {"brain", "shuffled", "none", "true", "autoencoder", "nearest", "brain - none"} <= {r["model"] for r in rows}
    assert not list(made[0].glob("runs/*generator*"))
    about = json.loads((folder / "pipeline.json").read_text())
    assert about["settings"]["pipeline"] == kind
    assert about["table"] == open_embeddings(next((made[0] / "embeddings").glob("small-*"))).digest
    value = {(r["model"], r["metric"]): r["value"] for r in rows if r["person"] == "all"}
    assert abs(value["none", "two_way pixels"] - 0.5) < 0.2  # 12 images, one sample each


def test_vectors_are_in_the_encoders_own_scale(made: tuple[Path, Run], drawn: Drawn) -> None:
    table = open_embeddings(next((made[0] / "embeddings").glob("small-*")))
    length = np.linalg.norm(table.vectors["projection"], axis=1)
    assert length.min() > 2  # not of length one
    conditions = open_embeddings(drawn["unclip"][0] / "conditions")
    assert np.abs(conditions.vectors["semantic"]).max() < 10  # components of variance one


def test_what_a_perfect_brain_says_is_the_vector_itself(made: tuple[Path, Run], models: Path) -> None:
    """Components go back into the encoder's space: its numbers where all components are kept, else its length."""
    table = open_embeddings(next((made[0] / "embeddings").glob("small-*")), ("projection",))
    vectors = table.vectors["projection"]
    images = np.zeros((len(vectors), 3, 1, 1), np.uint8)
    for length, kept in (("predicted", WIDTH), ("images", 3)):
        pipeline = loaded(settings_of(models, "unclip", length=length))
        conditions = Conditions.fit(table.vectors, images, kept, 0, 1)
        mean = float(np.linalg.norm(vectors, axis=1).mean())
        door = Pretrained(conditions, pipeline.autoencoder(16), pipeline, table, mean, np.zeros(WIDTH, np.float32), {})
        said = conditions.of_images(table, images)
        found = door.vectors(EmbeddingTable(said.rows.assign(source="brain"), said.vectors, {}))
        if kept == WIDTH:
            assert np.allclose(found, vectors, atol=1e-2)
        else:
            assert np.allclose(np.linalg.norm(found, axis=1), mean, rtol=1e-4)
            assert np.corrcoef(found.ravel(), vectors.ravel())[0, 1] > 0.8
        assert np.array_equal(door.vectors(said), vectors)  # of source true


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_near(models: Path, kind: str) -> None:
    """SDXL's autoencoder overflows in float16 (`force_upcast`): as in diffusers it works in float32, for that time."""
    seen = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pictures, bounds = [], []
    for precision in ("float32", "float16"):
        pipeline = loaded(settings_of(models, kind, precision=precision))
        bound = pipeline.autoencoder(16)
        bounds.append(bound.decode(bound.encode(seen)))
        pictures.append(painted(pipeline, some_vectors(2), [0, 1]))
        assert pipeline.pipe.unet.dtype == pipeline.vae.dtype == getattr(torch, precision)
    assert (pictures[0] - pictures[1]).abs().mean() < 0.02
    assert 0 < (bounds[0] - bounds[1]).abs().mean() < 0.01


def test_the_same_pictures_after_a_kill(made: tuple[Path, Run], drawn: Drawn, models: Path) -> None:
    folder = drawn["unclip"][0]
    before = files_of(folder)
    for name in list(before)[::3]:
        (folder / name).unlink()
    again, _ = reconstruct(made[1].folder, chosen(settings_of(models, "unclip")), quiet, quiet)
    assert again == folder
    assert files_of(again) == before


def apart(one: bytes, other: bytes) -> int:
    """Largest difference of two pictures' levels."""
    a, b = (np.asarray(Image.open(io.BytesIO(content))).astype(int) for content in (one, other))
    return int(np.abs(a - b).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("unclip", "noise_level", 400), ("unclip", "precision", "bfloat16"), ("unclip", "length", "predicted"),
     ("unclip", "no_brain", "unconditional"), ("ip_adapter", "adapter_scale", 0.3), ("ip_adapter", "strength", 0.7),
     ("kandinsky", "strength", 0.7), ("kandinsky", "no_brain", "unconditional")],
)  # fmt: skip
def test_every_setting_is_noticed(
    made: tuple[Path, Run], drawn: Drawn, models: Path, tmp_path: Path, kind: str, name: str, value: Any
) -> None:
    shutil.copytree(made[1].folder, tmp_path / "run", ignore=shutil.ignore_patterns("reconstruction-*"))
    folder, _ = reconstruct(tmp_path / "run", chosen(settings_of(models, kind), **{name: value}), quiet, quiet)
    assert folder.name != drawn[kind][0].name
    a, b = (files_of(each / "pictures") for each in (folder, drawn[kind][0]))
    every = {path.partition("/")[0] for path in a} - {"autoencoder", "nearest"}  # bounds: not drawn from a vector
    changed = every & {path.partition("/")[0] for path in a if apart(a[path], b[path]) > 1}  # one: rounding
    assert changed == {"no_brain": {"none"}, "length": every - {"true"}}.get(name, every)


def test_a_coarse_copy_is_where_sampling_begins(models: Path) -> None:
    """The less of the steps is sampled, the nearer a picture stays to the one that it began at."""
    for kind in ("ip_adapter", "kandinsky"):
        firsts = [torch.full((1, 3, 8, 8), level) for level in (0.1, 0.9)]
        apart = []
        for strength in (0.2, 0.9):
            pipeline = loaded(settings_of(models, kind, strength=strength))
            a, b = (painted(pipeline, some_vectors(1), [0], steps=10, first_B3HW=first) for first in firsts)
            apart.append(float((a - b).abs().mean()))
        assert apart[0] > apart[1], kind


@pytest.mark.slow
def test_another_table_layer_and_variant(made: tuple[Path, Run], models: Path, tmp_path: Path, drawn: Drawn) -> None:
    """`table`, `layer` and `variant` say where things are; what is read from there is the same."""
    settings = settings_of(models, "unclip")
    source = next((made[0] / "embeddings").glob("small-*"))
    table = open_embeddings(source)
    renamed = EmbeddingTable(table.rows, {"mine": table.vectors["projection"]}, table.encoder)
    write_embeddings(renamed, made[0] / "other/mine")
    shutil.copytree(models / "unclip", tmp_path / "half")
    for path in (tmp_path / "half").rglob("*.safetensors"):
        path.rename(path.with_suffix(".fp16.safetensors"))
    more = {"table": made[0] / "other/mine", "layer": "mine", "weights": tmp_path / "half", "variant": "fp16"}
    folder, _ = reconstruct(made[1].folder, chosen(settings, **more), quiet, quiet)
    assert files_of(folder / "pictures") == files_of(drawn["unclip"][0] / "pictures")
    for name, error in (("table", StoreError), ("layer", StoreError), ("variant", MissingError)):
        with pytest.raises(error):
            reconstruct(made[1].folder, chosen(settings, **{**more, name: "other"}), quiet, quiet)
    with pytest.raises(StoreError, match="trained with layers projection and without block_1"):
        reconstruct(made[1].folder, chosen(settings, layer="block_1"), quiet, quiet)


def test_names_are_found_in_the_cache_without_network(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = loaded(settings_of(models, "ip_adapter"))
    for constants in ("huggingface_hub.constants", "diffusers.utils.constants"):
        for name in ("HF_HUB_CACHE", "HF_MODULES_CACHE"):
            monkeypatch.setattr(f"{constants}.{name}", str(tmp_path), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, folder in (("sdxl", models / "sdxl"), ("adapters", models)):
        cached = tmp_path / f"models--some--{name}"
        (cached / "snapshots").mkdir(parents=True)
        (cached / "refs").mkdir()
        (cached / "refs/main").write_text("0" * 40)
        (cached / "snapshots" / ("0" * 40)).symlink_to(folder)
    more = {"weights": "some/sdxl", "adapter": "some/adapters/adapter.safetensors"}
    settings = settings_of(models, "ip_adapter", **more)
    assert find_pipeline(settings, CPU).width == WIDTH
    assert loaded(settings).digest == local.digest  # known by its files, not by where they are
    with pytest.raises(MissingError, match="not to be had from"):
        find_pipeline(settings_of(models, "ip_adapter", weights="some/other"), CPU)


def edited(models: Path, to: Path, wrong: str) -> list[str]:
    """Settings of a pipeline with one fault."""
    kind = wrong.split()[0]
    settings = settings_of(models, kind)
    shutil.copytree(settings.weights, to / "pipe")
    more: dict[str, Any] = {"weights": to / "pipe"}
    if kind == "unclip":
        more["encoder"] = models / "unclip/image_encoder"
    match wrong.removeprefix(f"{kind} "):
        case "missing":
            more["weights"] = to / "nowhere"
        case "other pipeline":
            more["weights"] = models / "sdxl"
        case "no part":
            shutil.rmtree(to / "pipe/vae")
        case "pickle":
            path = to / "pipe/unet/diffusion_pytorch_model.safetensors"
            path.rename(path.with_name("diffusion_pytorch_model.bin"))
        case "damaged":
            (to / "pipe/unet/diffusion_pytorch_model.safetensors").write_bytes(b"\x80\x04pickle")
        case "architecture":
            path = to / "pipe/unet/config.json"
            path.write_text(path.read_text().replace('"layers_per_block": 1', '"layers_per_block": 2'))
        case "half empty":
            path = to / "pipe/text_encoder/model.safetensors"
            save_file({k: v for k, v in load_file(path).items() if "final_layer_norm" not in k}, path, {"format": "pt"})
        case "width":
            path = to / "pipe/image_normalizer/config.json"
            path.write_text(path.read_text().replace('"embedding_dim": 16', '"embedding_dim": 24'))
        case "pickled adapter":
            more["adapter"] = to / "adapter.bin"
        case "plus adapter":
            more["adapter"] = to / "adapter.safetensors"
            save_file({"image_proj.latents": torch.zeros(1, 16, WIDTH)}, more["adapter"])
        case "adapter of another network":
            more["adapter"] = to / "adapter.safetensors"
            tensors = load_file(models / "adapter.safetensors")
            save_file({n: v for n, v in tensors.items() if not n.startswith("ip_adapter.1.")}, more["adapter"])
        case "no decoder":
            path = to / "pipe/unet/config.json"
            path.write_text(path.read_text().replace('"encoder_hid_dim": 16', '"encoder_hid_dim": null'))
        case "no encoder":
            more["encoder"] = to / "nowhere"
    return chosen(settings, **more)


WRONG: dict[str, tuple[type[SynapseError], str]] = {
    "unclip missing": (MissingError, "no such folder"),
    "unclip other pipeline": (DataError, "holds StableDiffusionXLPipeline, not StableUnCLIPImg2ImgPipeline"),
    "unclip no part": (MissingError, "vae: missing; fetch the whole pipeline"),
    "unclip pickle": (MissingError, "pickled ones are never read"),
    "unclip damaged": (DataError, "cannot be loaded as a StableUnCLIPImg2ImgPipeline: "),
    "unclip architecture": (DataError, "cannot be loaded as a StableUnCLIPImg2ImgPipeline: "),
    "unclip half empty": (DataError, "its weights lack final_layer_norm"),
    "unclip width": (StoreError, r"has 16 numbers, and .*pipe takes 24"),
    "ip_adapter pickled adapter": (MissingError, "not a safetensors file"),
    "ip_adapter plus adapter": (DataError, "not an IP-Adapter of one vector an image"),
    "ip_adapter adapter of another network": (DataError, "cannot be loaded as a StableDiffusionXLPipeline"),
    "ip_adapter no encoder": (MissingError, r"pretrained\.encoder = .*no such folder"),
    "kandinsky no decoder": (DataError, "encoder_hid_dim = None"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_ends_in_one_line(
    made: tuple[Path, Run], models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = {path.name for path in made[1].folder.iterdir()}
    with pytest.raises(WRONG[wrong][0], match=WRONG[wrong][1]) as caught:
        reconstruct(made[1].folder, edited(models, tmp_path, wrong), quiet, quiet)
    assert "\n" not in str(caught.value)
    assert {path.name for path in made[1].folder.iterdir()} == before


@pytest.mark.parametrize("change", ["length one", "another encoder"])
def test_vectors_of_another_encoder_or_scale_are_refused(made: tuple[Path, Run], models: Path, change: str) -> None:
    """Of the same width: only the encoder itself can tell."""
    table = open_embeddings(next((made[0] / "embeddings").glob("small-*")))
    vectors = table.vectors["projection"]
    other = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if change == "length one" else vectors[:, ::-1]
    write_embeddings(
        EmbeddingTable(table.rows, {"projection": np.ascontiguousarray(other)}, table.encoder),
        made[0] / "other/vectors",
    )
    with pytest.raises(StoreError, match="is not what the pipeline's image encoder image_encoder gives"):
        reconstruct(
            made[1].folder, chosen(settings_of(models, "unclip"), table=made[0] / "other/vectors"), quiet, quiet
        )


@pytest.mark.parametrize(
    ("more", "text"),
    [(("reconstruct.sampler=ddim",), "pretrained pipelines bring their own"), (("reconstruct.guidance=0.5",), "none"),
     (("generator.components=0",), "needs some"),
     (("pretrained.offload=true", "execution.device=cpu"), "on a CPU leave it out"),
     (("pretrained.strength=0.1",), "is a setting of ip_adapter and kandinsky, not of 'unclip'")],
)  # fmt: skip
def test_settings_that_a_pipeline_has_no_use_for(
    made: tuple[Path, Run], models: Path, more: tuple[str, ...], text: str
) -> None:
    with pytest.raises(SettingsError, match=text):
        reconstruct(made[1].folder, [*chosen(settings_of(models, "unclip")), *more], quiet, quiet)


@pytest.mark.parametrize(
    ("given", "text"),
    [(["weights=x"], "choose one by pipeline"), (["pipeline=unclip"], "needs weights"),
     (["pipeline=unclip", "weights=x", "adapter=y"], "do not go together"),
     (["pipeline=ip_adapter", "weights=x"], "do not go together"),
     (["pipeline=kandinsky", "weights=x"], "needs encoder"),
     (["pipeline=kandinsky", "weights=x", "encoder=y", "noise_level=3"], "not of 'kandinsky'")],
)  # fmt: skip
def test_settings_that_contradict_each_other(given: list[str], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        parse_recipe({}, [f"pretrained.{setting}" for setting in given])


def test_strength_needs_a_step_and_a_coarse_copy(made: tuple[Path, Run], models: Path) -> None:
    base = chosen(settings_of(models, "kandinsky", strength=0.2))
    for more, text in (((), "leaves no step"), (("generator.low_side=0",), "begins at the coarse copy")):
        with pytest.raises(SettingsError, match=text):
            reconstruct(made[1].folder, [*base, *more], quiet, quiet)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_that_wait_in_memory_change_no_picture(models: Path, kind: str) -> None:
    """The hooks are the same on a CPU, where nothing is saved."""
    found, plain = find_pipeline(settings_of(models, kind), CPU), loaded(settings_of(models, kind))
    try:
        waiting = load_pipeline(found, settings_of(models, kind, offload=True), CPU)
    except MissingError as error:
        pytest.skip(str(error))
    seen = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    bounds = [p.autoencoder(16).decode(p.autoencoder(16).encode(seen)) for p in (plain, waiting)]
    assert torch.equal(bounds[0], bounds[1])
    assert torch.equal(painted(plain, some_vectors(2), [0, 1]), painted(waiting, some_vectors(2), [0, 1]))
    assert hasattr(waiting.pipe.unet, "_hf_hook")


def test_half_precision_that_overflows_is_said(models: Path) -> None:
    pipeline = loaded(settings_of(models, "unclip"))
    with pytest.raises(DataError, match="not finite in float32"):
        painted(pipeline, np.full((1, WIDTH), np.inf, np.float32), [0])


def test_the_mean_of_clip_is_the_processors(models: Path) -> None:
    values = json.loads((models / "unclip/feature_extractor/preprocessor_config.json").read_text())
    assert tuple(values["image_mean"]) == CLIP_MEAN


def test_a_run_reads_its_scores_back(made: tuple[Path, Run], drawn: Drawn) -> None:
    assert drawn
    rows = pd.DataFrame(json.loads((made[1].folder / "scores.json").read_text())["rows"])
    assert set(rows["task"]) == {"reconstruct"}

"""What this machine has, what that means for a recipe, and what the recipe lacks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from synapse_diffusion.bids import read_concepts, read_images
from synapse_diffusion.config import Recipe, SimulateSettings
from synapse_diffusion.convert import n_workers, store_bytes, unconverted, unpaired
from synapse_diffusion.download.checks import Folder
from synapse_diffusion.errors import MissingError, SynapseError
from synapse_diffusion.info.values import Table, in_bytes
from synapse_diffusion.parallel import choose_device, n_processes
from synapse_diffusion.store.embeddings import read_embeddings_manifest
from synapse_diffusion.store.files import find_stores, read_manifest
from synapse_diffusion.store.pictures import find_images, images_root
from synapse_diffusion.store.signals import SHARE
from synapse_diffusion.training.tasks import concept_folder
from synapse_diffusion.tune.machine import choose, this_machine

EXTRAS: Final = {
    "download": "fetch recordings from OpenNeuro",
    "encoders": "vectors of CLIP, SigLIP, DINOv2, ViT (embed.encoder = 'transformers')",
    "generators": "pretrained pipelines and autoencoders of diffusers",
    "perceptual": "AlexNet, Inception, EfficientNet, SwAV, LPIPS, DreamSim as metrics",
    "artefacts": "components that ICLabel calls artefacts (convert.ica = 'iclabel')",
    "tune": "a search over settings by Ray Tune",
    "hdf5": "export --format hdf5",
}
"""What each pip extra is for."""


@dataclass(frozen=True)
class Diagnosis:
    """Facts by name, and of a recipe what it lacks, one line each."""

    machine: Mapping[str, str]
    extras: Table
    recipe: Mapping[str, str]
    lacks: tuple[str, ...] = ()


def diagnose(recipe: Recipe | None) -> Diagnosis:
    """Look at this machine and, where one is given, at what a recipe needs of it; writes and fetches nothing."""
    if recipe is None:
        return Diagnosis(_machine(Recipe()), _extras(), {})
    lacks = _Lacks()
    facts = {name: told for name, tell in FACTS.items() if (told := lacks.told(tell, recipe))}
    return Diagnosis(_machine(recipe), _extras(), facts, (*lacks.lines, *_extras_lacking(recipe)))


class _Lacks:
    """What is missing, gathered from the very functions that would fail at run time."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def told(self, tell: Callable[[Recipe], str], recipe: Recipe) -> str:
        """The fact; where it cannot be had, its reason is a lack."""
        try:
            return tell(recipe)
        except SynapseError as error:
            self.lines += [line for line in str(error).splitlines() if line not in self.lines]
            return ""


def _machine(recipe: Recipe) -> dict[str, str]:
    """Processors, memory, disks, PyTorch, Slurm, Ray."""
    [node] = this_machine().nodes
    page, total, unused = (os.sysconf(f"SC_{name}") for name in ("PAGE_SIZE", "PHYS_PAGES", "AVPHYS_PAGES"))
    disks: dict[str, list[str]] = {}
    for name, path in recipe.paths:
        if path:
            disks.setdefault(in_bytes(Folder(Path(path)).free_bytes()), []).append(f"paths.{name}")
    sbatch, ray = shutil.which("sbatch"), _version("ray")
    return {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "processors": f"{node.cpus} of {os.cpu_count()} may be used",
        "memory": f"{in_bytes(total * page)}, {in_bytes(unused * page)} free",
        "GPUs": "; ".join(_gpus()) or "none that PyTorch sees",
        "PyTorch": f"{torch.__version__}, {torch.get_num_threads()} threads, "
        + (f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"),
        "free disk": "; ".join(f"{free} for {', '.join(names)}" for free, names in disks.items()),
        "Slurm": f"{sbatch}: synapse-diffusion submit" if sbatch else "no (sbatch is not there)",
        "Ray": f"{ray}: synapse-diffusion tune" if ray else "no (pip extra tune)",
    }


def _gpus() -> Iterator[str]:
    for k in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(k)
        yield f"{torch.cuda.get_device_name(k)}, {in_bytes(total)}, {in_bytes(free)} free"
    if torch.backends.mps.is_available():
        yield "Apple's, by MPS"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _packages(extra: str) -> dict[str, str]:
    """Packages of a pip extra and their versions here; empty: not installed."""
    found = {}
    for line in importlib.metadata.requires("synapse-diffusion") or ():
        if re.search(rf"extra == ['\"]{extra}['\"]", line):
            name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
            found[name] = _version(name)
    return found


def _extras() -> Table:
    rows = []
    for extra, use in EXTRAS.items():
        packages = _packages(extra)
        there = ", ".join(f"{name} {version or 'missing'}" for name, version in packages.items())
        rows.append((extra, use, there, "" if all(packages.values()) else f"pip install 'synapse-diffusion[{extra}]'"))
    return Table("optional extras", ("extra", "for", "here", "to install"), tuple(rows), numbers=False)


def _extras_lacking(recipe: Recipe) -> Iterator[str]:
    """Packages without which a stage of `run` stops."""
    retrieves = recipe.target.task == "retrieve"
    wanted = {
        "artefacts": recipe.convert.ica == "iclabel" and "convert.ica = 'iclabel'",
        "encoders": retrieves and not recipe.target.table and recipe.embed.encoder == "transformers"
        and "embed.encoder = 'transformers'",
        "generators": recipe.pretrained.pipeline != "none" and f"pretrained.pipeline = {recipe.pretrained.pipeline!r}",
    }  # fmt: skip
    for extra, setting in wanted.items():
        missing = [name for name, version in _packages(extra).items() if not version]
        if setting and missing:
            yield f"{setting} needs {', '.join(missing)}: pip install 'synapse-diffusion[{extra}]'"


def _device(recipe: Recipe) -> str:
    device = choose_device(recipe.execution.device)
    return f"{device} (execution.device = {recipe.execution.device!r})"


def _training(recipe: Recipe) -> str:
    execution = recipe.execution
    n = n_processes(execution.processes, execution.device)
    processes = f"{n} processes ({execution.sharding})" if n > 1 else "1 process"
    return f"{processes}, {execution.threads or torch.get_num_threads()} threads, {recipe.train.precision}"


def _recordings(recipe: Recipe) -> str:
    """What is to be converted, and whether the stores fit their disk. Raises what `convert` raises."""
    if recipe.data.modality == "comb":
        why = unpaired(recipe)
        return f"{recipe.pairs.eeg} and {recipe.pairs.meg} are paired" + (f" anew: {why}" if why else " already")
    if is_simulated_first(recipe):
        return f"{recipe.paths.bids} is not there: a study is simulated first by --from simulate"
    new, n = unconverted(recipe, lambda _: None)
    if not new:
        return f"{n}, all converted"
    needed, free = store_bytes(new[0], recipe) * len(new), Folder(Path(recipe.paths.stores)).free_bytes()
    size = f"some {in_bytes(needed)}"
    if needed > free:
        raise MissingError(
            f"paths.stores = {recipe.paths.stores!r}: {size} are needed for {len(new)} recordings and {in_bytes(free)} "
            "are free; free some space or name another disk"
        )
    return f"{len(new)} of {n} to convert into {size}, {n_workers(recipe, len(new))} side by side"


def _signals(recipe: Recipe) -> str:
    """Training reads what is converted from a GPU's memory where it has room."""
    device, root = choose_device(recipe.execution.device), Path(recipe.paths.stores)
    if recipe.data.modality == "comb" or not (root / recipe.data.name).is_dir():
        return ""
    held = sum(int(read_manifest(folder)["signal_bytes"]) for folder in find_stores(root, recipe.data.name))
    if device.type != "cuda":
        return f"{in_bytes(held)} in stores, read from disk as they are needed"
    free = torch.cuda.mem_get_info(device)[0]
    if held > SHARE * free:
        return f"{in_bytes(held)} in stores, read from disk as they are needed: {in_bytes(free)} are free on {device}"
    return f"{in_bytes(held)} in stores, to lie on {device}, of {in_bytes(free)} free"


def _labels(recipe: Recipe) -> str:
    """THINGS' tables, where the recipe reads them. Raises what `convert` and `train` raise."""
    if is_simulated_first(recipe):
        return ""
    folder, told = concept_folder(recipe), []
    if recipe.data.events.image_number:
        told.append(f"numbers of images by {read_images(folder).path}")
    if recipe.target.task != "retrieve" and recipe.labels.source == "things":
        table = read_concepts(folder)
        table.columns(recipe.labels.classes or table.categories)
        told.append(f"{len(table.concepts)} concepts, {len(table.categories)} categories in {folder}")
    return "; ".join(told)


def _images(recipe: Recipe) -> str:
    """Pictures to embed, and the encoder's weights. Raises what `embed` raises."""
    if recipe.target.task != "retrieve" or is_simulated_first(recipe):
        return ""
    if recipe.target.table:
        table = Path(recipe.paths.embeddings) / recipe.target.table
        return f"{read_embeddings_manifest(table)['rows']} vectors in {table}"
    root, weights = images_root(recipe.paths), recipe.embed.weights
    if recipe.embed.encoder == "darknet" and not Path(weights).is_file():
        raise MissingError(f"embed.weights = {weights!r}: no such file")
    told = f"{len(find_images(root))} in {root}, by {recipe.embed.encoder}"
    if recipe.embed.encoder != "transformers":
        return told
    return f"{told}: {weights} " + ("is a folder here" if Path(weights).is_dir() else _cached(weights))


def _cached(weights: str) -> str:
    """Is the model of this name in huggingface.co's cache?"""
    if importlib.util.find_spec("huggingface_hub") is None:
        return "comes from huggingface.co"
    from huggingface_hub import try_to_load_from_cache

    there = isinstance(try_to_load_from_cache(weights, "config.json"), str)
    return "is in the cache" if there else "comes from huggingface.co, which needs the network"


def _search(recipe: Recipe) -> str:
    """How `tune` would deal its trials."""
    return choose(this_machine(), recipe.tune.trials, recipe.execution).why if recipe.tune.space else ""


def is_simulated_first(recipe: Recipe) -> bool:
    """Is the recipe about a simulated study that is not there yet?"""
    return recipe.simulate != SimulateSettings() and not Path(recipe.paths.bids).exists()


FACTS: Final[Mapping[str, Callable[[Recipe], str]]] = {
    "device": _device,
    "training": _training,
    "recordings": _recordings,
    "signals": _signals,
    "tables": _labels,
    "pictures": _images,
    "tune": _search,
}

"""Pictures of everyday objects, drawn from the table in ``shapes``: stimuli of known content."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from synapse_diffusion.simulate.shapes import CATEGORIES, DRAWINGS

__all__ = ["CATEGORIES", "draw_picture"]

Floats = NDArray[np.float64]
Numbers = list[float]

OVERSAMPLING = 2
LUMA = np.array([0.299, 0.587, 0.114])
TEXTURED = {"body": 255, "shade": 220, "tint": 120, "accent": 140}


class Drawing(NamedTuple):
    """A parsed concept: corners (P, 2) in unit coordinates; of each outline, where it ends and its part."""

    turn: float
    body: str
    accent: str
    roles: tuple[str, ...]
    corners: Floats
    ends: tuple[int, ...]
    owners: tuple[int, ...]


def draw_picture(concept: str, exemplar: int, seed: int, size: int = 128) -> NDArray[np.uint8]:
    """Draw one exemplar of a concept: the same arguments give the same picture, (H, W, 3) sRGB.

    Seed and exemplar are not negative. The background is drawn before the object and without regard to it.

    Raises:
        KeyError: no drawing of this concept exists.
    """
    if concept not in DRAWINGS:
        raise KeyError(f"no drawing of the concept {concept!r}")
    drawing = _parse(concept)
    rng = np.random.default_rng((seed, crc32(concept.encode()), exemplar))
    scene = _background(rng, size)
    parts = _rasterise(drawing, _pose(rng, drawing), size * OVERSAMPLING)
    scene = _put(rng, scene, parts, drawing, _palette(rng, drawing, scene.mean(axis=(0, 1))))
    scene += rng.standard_normal((size, size, 1)) * rng.uniform(0, 0.03)
    return (scene.clip(0, 1) * 255 + 0.5).astype(np.uint8)


@cache
def _parse(concept: str) -> Drawing:
    head, *texts = (text.split() for text in DRAWINGS[concept].split(";"))
    roles: list[str] = []
    outlines: list[Floats] = []
    owners: list[int] = []
    for words in texts:
        copies, step = 1, np.zeros(3)
        if words[0].startswith("*"):
            copies, step, words = int(words[0][1:]), np.array(words[1:4], float), words[4:]
        shapes = KINDS[words[0].removesuffix("2")]([float(word) for word in words[2:]])
        if words[0].endswith("2"):
            shapes = [*shapes, *(shape * (-1, 1) for shape in shapes)]
        for copy in range(copies):
            roles.append(words[1])
            outlines += [shape @ _rotation(copy * step[2]).T + copy * step[:2] for shape in shapes]
            owners += [len(roles)] * len(shapes)
    ends = np.cumsum([len(outline) for outline in outlines]).tolist()
    turn, body, accent = head
    corners = np.concatenate(outlines)
    return Drawing(float(turn), body, accent, tuple(roles), corners, tuple(ends), tuple(owners))


def _rotation(degrees: float) -> Floats:
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def _ellipse(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> Floats:
    angles = np.radians(np.linspace(start, stop, 5 + int(abs(stop - start) / 15)))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def _oval(numbers: Numbers) -> list[Floats]:
    x, y, rx, ry, *turn = numbers
    return [_ellipse(0, 0, rx, ry, 0, 350) @ _rotation(sum(turn)).T + (x, y)]


def _box(numbers: Numbers) -> list[Floats]:
    x, y, width, height, *corner = numbers
    radius = min(sum(corner), width, height)
    round_corners = _ellipse(0, 0, 1, 1, 5, 355)
    return [round_corners * radius + np.sign(round_corners) * (width - radius, height - radius) + (x, y)]


def _pairs(numbers: Numbers) -> Floats:
    return np.array(numbers).reshape(-1, 2)


def _smooth(points: Floats, closed: bool) -> Floats:
    """Catmull-Rom spline through the points, eight samples a span."""
    before, after = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    around = np.concatenate([before, points, after])
    t = np.arange(8)[:, None] / 8
    spans = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(around, around[1:], around[2:], around[3:], strict=False)
    ]
    return np.concatenate(spans if closed else [*spans, points[-1:]])


def _line(width: float, points: Floats) -> list[Floats]:
    """Thick segments with round ends."""
    capsules = []
    for (x, y), (to_x, to_y) in pairwise(points):
        turn = math.degrees(math.atan2(to_y - y, to_x - x))
        far = _ellipse(to_x, to_y, width / 2, width / 2, turn - 90, turn + 90)
        near = _ellipse(x, y, width / 2, width / 2, turn + 90, turn + 270)
        capsules.append(np.concatenate([far, near]))
    return capsules


def _curve(numbers: Numbers) -> list[Floats]:
    """Smooth ribbon whose width goes from the first number to the second."""
    middle = _smooth(_pairs(numbers[2:]), closed=False)
    along = np.gradient(middle, axis=0)
    radius = np.linspace(numbers[0], numbers[1], len(middle)) / 2
    across = along[:, ::-1] * (-1, 1) / np.linalg.norm(along, axis=1, keepdims=True) * radius[:, None]
    ends = [middle[end] + radius[end] * _ellipse(0, 0, 1, 1, 0, 345) for end in (0, -1)]
    return [np.concatenate([middle + across, (middle - across)[::-1]]), *ends]


KINDS: dict[str, Callable[[Numbers], list[Floats]]] = {
    "oval": _oval,
    "box": _box,
    "poly": lambda numbers: [_pairs(numbers)],
    "blob": lambda numbers: [_smooth(_pairs(numbers), closed=True)],
    "line": lambda numbers: _line(numbers[0], _pairs(numbers[1:])),
    "curve": _curve,
    "arc": lambda numbers: _line(numbers[0], _ellipse(*numbers[1:])),
    "fan": lambda numbers: [np.concatenate([_ellipse(*numbers), _pairs(numbers[:2])])],
}


def _pose(rng: np.random.Generator, drawing: Drawing) -> Floats:
    """Corners (P, 2) in 0..2: bent, turned, sheared, mirrored, seen in perspective and put in the picture."""
    bend, stretch, shear, *tilt = rng.uniform(-1, 1, 5)
    points = drawing.corners + 0.04 * bend * np.sin(2.5 * drawing.corners[:, ::-1] + rng.uniform(0, 6, 2))
    mirror = np.diag([rng.choice((-1.0, 1.0)), 1.0])
    form = np.array([[math.exp(0.1 * stretch), 0.14 * shear], [0, math.exp(-0.1 * stretch)]])
    points = points @ mirror @ form.T @ _rotation(drawing.turn * rng.uniform(-1, 1)).T
    points = points / (1 + 0.12 * points @ np.array(tilt))[:, None]
    low, high = points.min(axis=0), points.max(axis=0)
    half = (high - low) / 2
    scale = rng.uniform(0.66, 0.94) / half.max()
    room = 0.97 - half * scale
    placed: Floats = (points - (low + high) / 2) * scale + 1 + room * rng.uniform(-0.9, 0.9, 2)
    return placed


def _rasterise(drawing: Drawing, corners: Floats, side: int) -> Image.Image:
    """Image whose pixels hold the number of the part seen there, from 1; 0 is the background."""
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    flat = (corners * (side / 2)).ravel().tolist()
    for owner, start, end in zip(drawing.owners, (0, *drawing.ends), drawing.ends, strict=False):
        draw.polygon(flat[2 * start : 2 * end], fill=owner)
    return image


def _any_colour(rng: np.random.Generator) -> Floats:
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.85), rng.uniform(0.25, 1)))


def _hexadecimal(name: str) -> Floats:
    return np.array([int(digit, 16) / 15 for digit in name])


def _choose(rng: np.random.Generator, names: str, against: Floats) -> Floats:
    """One of the named colours, varied: the first of five draws that stands out, else the best of them."""
    draws = []
    for _ in range(5):
        name = rng.choice(names.split("/"))
        draws.append(_any_colour(rng) if name == "any" else _hexadecimal(name) * rng.uniform(0.8, 1.15))
        if abs((draws[-1] - against) @ LUMA) > 0.25:
            return draws[-1]
    return max(draws, key=lambda colour: float(np.abs(colour - against) @ LUMA))


def _palette(rng: np.random.Generator, drawing: Drawing, backdrop: Floats) -> Floats:
    """Colours of the background (black) and of every part, (1 + parts, 3), under a coloured light."""
    body = _choose(rng, drawing.body, backdrop)
    accent = _choose(rng, drawing.accent, body)
    dark, light = rng.uniform(0.02, 0.15, 3), rng.uniform(0.85, 1, 3)
    known = {"body": body, "shade": 0.66 * body, "tint": 0.6 * body + 0.4, "accent": accent}
    known |= {"dark": dark, "light": light}
    colours = np.array([known[role] if role in known else _hexadecimal(role) for role in drawing.roles])
    colours *= rng.uniform(0.88, 1.1, 3) * rng.normal(1, 0.04, (len(colours), 1))
    return np.concatenate([np.zeros((1, 3)), colours]).clip(0, 1)


def _unit(image: Image.Image) -> Floats:
    return np.asarray(image, dtype=np.float64) / 255


def _moved(image: Image.Image, by: Floats) -> Image.Image:
    moved = Image.new("L", image.size)
    moved.paste(image, (round(by[0]), round(by[1])))
    return moved


def _put(rng: np.random.Generator, scene: Floats, parts: Image.Image, drawing: Drawing, palette: Floats) -> Floats:
    """Lay the object, textured, lit from one side and with its shadow, on the background (H, W, 3)."""
    size = len(scene)
    woven = [0, *(TEXTURED.get(role, 0) for role in drawing.roles)]
    cover = parts.point([0] + [255] * 255).reduce(OVERSAMPLING)
    weave = parts.point(woven + [0] * (256 - len(woven))).reduce(OVERSAMPLING)
    steps = ImageChops.difference(parts, ImageChops.offset(parts, 1, 1))
    edges = _unit(steps.point([0] + [255] * 255).reduce(OVERSAMPLING))
    parts.putpalette((palette * 255).astype(np.uint8).tobytes())
    paint = _unit(parts.convert("RGB").reduce(OVERSAMPLING))

    sun = _rotation(rng.uniform(0, 360))[0] * size
    soft = cover.filter(ImageFilter.GaussianBlur(size / 20))
    relief = _unit(soft) - _unit(_moved(soft, 0.06 * sun))
    light = (1 + rng.uniform(0.1, 0.45) * relief) * (1 - rng.uniform(0.1, 0.6) * edges)
    light *= 1 + _texture(rng, size) * _unit(weave)
    shadow = rng.uniform(0.2, 0.7) * _unit(_moved(soft, rng.uniform(0.02, 0.08) * sun))
    clear = 1 - _unit(cover)
    return scene * (clear * (1 - shadow))[..., None] + paint * light[..., None]


def _noise(rng: np.random.Generator, cells: int, size: int) -> Floats:
    """Smooth field (H, W) in -1..1 with features one cell wide; the draws do not depend on the size."""
    grid = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    return _unit(grid.resize((size, size), Image.Resampling.BICUBIC)) * 2 - 1


def _ramps(rng: np.random.Generator, size: int) -> tuple[Floats, Floats]:
    """Two planes (H, W), -1 to 1 over a width, that rise in random, perpendicular directions."""
    right, down = _rotation(rng.uniform(0, 360))[0]
    x = np.linspace(-1, 1, size)
    y = x[:, None]
    return right * x + down * y, right * y - down * x


def _tiles(rng: np.random.Generator, size: int) -> Floats:
    """Board (H, W) of -1 and 1."""
    along, across = _ramps(rng, size)
    wide, high = rng.uniform(6, 20, 2)
    board: Floats = np.sign(np.sin(wide * along) * np.sin(high * across))
    return board


def _texture(rng: np.random.Generator, size: int) -> Floats:
    """Relative change of lightness (H, W): plain, gradient, stripes, speckle, mottle or board."""
    field = np.zeros((size, size))
    match int(rng.integers(6)):
        case 0:
            field = _ramps(rng, size)[0]
        case 1:
            field = np.tanh(3 * np.sin(rng.uniform(12, 36) * _ramps(rng, size)[0]))
        case 2:
            field = np.where(_noise(rng, 48, size) > 0.45, -1.0, 0.0)
        case 3:
            field = 1.5 * _noise(rng, int(rng.integers(6, 16)), size)
        case 4:
            field = _tiles(rng, size)
    return rng.uniform(0.1, 0.35) * field


def _background(rng: np.random.Generator, size: int) -> Floats:
    """Scene (H, W, 3) in 0..1 between two colours: gradient, noise, horizon, tiles or blurred blobs."""
    first = _any_colour(rng)
    second = (first * rng.uniform(0.6, 1.4) + rng.normal(0, 0.12, 3)).clip(0.05, 1)
    match int(rng.integers(5)):
        case 0:
            field = 0.5 + 0.5 * _ramps(rng, size)[0]
        case 1:
            field = 0.5 + 0.5 * _noise(rng, int(rng.integers(4, 40)), size)
        case 2:
            height = np.linspace(0, 1, size)[:, None] - rng.uniform(0.35, 0.75)
            field = np.where(height > 0, 0.9 - 0.4 * height + 0.2 * _noise(rng, 32, size), 0.3 + 0.4 * height)
        case 3:
            field = 0.5 + 0.35 * _tiles(rng, size)
        case _:
            field = 1 / (1 + np.exp(-6 * _noise(rng, int(rng.integers(3, 7)), size)))
    return first + (second - first) * field[..., None]

"""What the example gallery shows of an example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def keep_figures(block: Any, variables: dict[str, Any], config: dict[str, Any]) -> str:
    """Keep the figures that an example's block has made; they are not pyplot's, which is what the gallery looks for."""
    seen = variables["example_globals"].setdefault("_seen", set())
    kept = []
    for value in list(variables["example_globals"].values()):
        if isinstance(value, Figure) and id(value) not in seen:
            seen.add(id(value))
            path = Path(next(variables["image_path_iterator"]))
            value.savefig(path, dpi=100)
            kept.append(str(path))
    return str(figure_rst(kept, config["src_dir"]))

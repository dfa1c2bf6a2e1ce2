"""Write docs/reference/settings.md from the settings tree."""

from __future__ import annotations

import typing
from pathlib import Path

from pydantic import BaseModel

from synapse_diffusion.config import Recipe


def rows(model: type[BaseModel], prefix: str) -> list[str]:
    """One line a key: name, default, what it does."""
    lines = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            lines += rows(inner, f"{prefix}{name}.")
            continue
        options = [option for option in typing.get_args(inner) if isinstance(option, str)]
        about = " ".join((field.description or "").split())
        about += f" One of {', '.join(f'`{option}`' for option in options)}." if options else ""
        lines.append(f"| `{prefix}{name}` | `{field.default!r}` | {about.replace('|', '&#124;').strip()} |")
    return lines


def text() -> str:
    """The whole page."""
    parts = ["# Settings\n\nWritten by `python docs/make_settings.py` from the settings' own docstrings.\n"]
    for name, field in Recipe.model_fields.items():
        branch = typing.cast("type[BaseModel]", field.annotation)
        about = " ".join((branch.__doc__ or "").split())
        parts.append(f"## {name}\n\n{about}\n\n| key | default | what it does |\n|---|---|---|")
        parts.append("\n".join(rows(branch, f"{name}.")) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    (Path(__file__).parent / "reference/settings.md").write_text(text(), encoding="utf-8")

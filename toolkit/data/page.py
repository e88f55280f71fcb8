"""Pages without external resources, all of one look: `page.html.j2` and templates that extend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import orjson

from toolkit.errors import UserError


def render(template: Path, **values: Any) -> str:
    """The page that `template` makes of `values`."""
    loader = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    return jinja2.Environment(autoescape=True, loader=loader).get_template(template.name).render(**values)


def write_page(folder: Path, name: str, page: str, figures: dict[str, Any]) -> Path:
    """Write a page and what it shows as `name`.html and `name`.json into `folder`, which is made; returns the page.

    Raises UserError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
        file = folder / f"{name}.html"
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to: {error.strerror or error}") from None
    return file

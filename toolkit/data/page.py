"""Pages without external resources, all of one look: `page.html.j2` and templates that extend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def render(template: Path, **values: Any) -> str:
    """The page that `template` makes of `values`."""
    loader = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    return jinja2.Environment(autoescape=True, loader=loader).get_template(template.name).render(**values)

"""Every command that the docs and recipes show is one that the program takes; tests/e2e runs the way they lead."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from toolkit.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "datasets" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def commands(text: str) -> list[str]:
    lines = re.findall(r"^(?:#\s+)?(?:.*&& )?(seg-tune [^\n`]+)$", text, re.MULTILINE)
    return [line.partition("  #")[0] for line in lines] + re.findall(r"`(seg-tune [^`\n]+)`", text)


SHOWN = sorted({command for page in (*PAGES, *RECIPES) for command in commands(page.read_text(encoding="utf-8"))})


def test_there_are_commands_to_check() -> None:
    assert "seg-tune quickstart" in SHOWN
    assert len(SHOWN) > 10


@pytest.mark.parametrize("command", SHOWN)
def test_the_command_is_understood(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    group = typer.main.get_command(app)
    if name.startswith("-"):
        return
    assert name in group.commands  # type: ignore[attr-defined]
    found = group.commands[name]  # type: ignore[attr-defined]
    if hasattr(found, "commands"):  # `seg-tune runs list`
        name = arguments.pop(0)
        assert name in found.commands
        found = found.commands[name]
    if arguments:
        assert found.make_context(name, arguments).params


def test_pages_link_to_files_that_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_bug_reports_ask_for_the_doctor() -> None:
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    form = yaml.safe_load((folder / "bug_report.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    asked = {field["id"]: field for field in form["body"]}
    assert "seg-tune doctor --json" in asked["doctor"]["attributes"]["label"]
    assert asked["doctor"]["validations"]["required"] is True
    assert yaml.safe_load((folder / "config.yml").read_text(encoding="utf-8"))["blank_issues_enabled"] is True

"""`seg-tune validate`: everything that is wrong with a dataset, on the screen, as JSON, as a page, and mended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from toolkit.data.findings.ceiling import Ceiling, check_sizes_for, mask_ceiling
from toolkit.data.findings.check import Checked, Stage, check_sources
from toolkit.data.findings.file import Advance
from toolkit.data.findings.record import Found
from toolkit.data.findings.table import SEVERITIES, Lang
from toolkit.data.layouts import Source, find_sources
from toolkit.data.repair import repair
from toolkit.data.report import write_report
from toolkit.errors import UserError
from toolkit.recipe import load_recipe

SHOWN = 3
"""Places that the screen names for each code."""
WORDS: dict[Lang, dict[str, str]] = {
    "en": {
        "split": "{name}: {pictures} pictures, {objects} annotations, {classes} classes",
        "unread": "{name}: cannot be read",
        "more": "and {count} more",
        "partly": "only {count} pictures of each split were opened",
        "passed": "check passed: training takes this data",
        "failed": "check failed: training refuses this data",
        "counts": "{error} errors, {warning} warnings, {note} notes; {seconds:.1f} s",
        "ceiling": "{model} can reach a mask AP of {ap:.1f} at best on {split} (mean IoU {iou:.3f}; "
        "measured on {measured} of {instances} objects)",
        "report": "report: {file}",
        "fixed": "mended copy: {folder} ({changed} changes, {left_out} entries left out, {remaining} findings remain; "
        "all in {log})",
    },
    "zh": {
        "split": "{name}：{pictures} 张图片，{objects} 个标注，{classes} 个类别",
        "unread": "{name}：无法读取",
        "more": "另有 {count} 处",
        "partly": "每个划分只打开了 {count} 张图片",
        "passed": "检查通过：可以训练",
        "failed": "检查未通过：训练会拒绝该数据",
        "counts": "{error} 个错误，{warning} 个警告，{note} 个提示；{seconds:.1f} 秒",
        "ceiling": "{model} 在 {split} 上的掩码 AP 上限为 {ap:.1f}"
        "（平均 IoU {iou:.3f}；测量了 {instances} 个目标中的 {measured} 个）",
        "report": "报告：{file}",
        "fixed": "修复后的数据集：{folder}（{changed} 处修改，剔除 {left_out} 项，"
        "仍有 {remaining} 个问题；详见 {log}）",
    },
}


def validate_dataset(
    data: Path | None,
    *,
    fix: Path | None = None,
    report: Path | None = None,
    as_json: bool = False,
    max_images: int | None = None,
    model: str | None = None,
    lang: str | None = None,
    train_json: Path | None = None,
    val_json: Path | None = None,
    images: Path | None = None,
) -> bool:
    """Check a dataset, print what was found, and write what was asked for; whether training would take the data.

    Args:
        data, train_json, val_json, images: as for `find_sources`.
        fix: new folder for a mended copy.
        report: folder for the page and PaddleX's `check_dataset_result.json`.
        max_images: pictures of each split that are opened, evenly spread; by default all.
        model: adds what this model can make of the data.
        lang: `en` or `zh`; by default that of the environment.

    Raises UserError if there is no dataset, for an unknown model, or if what is asked for cannot be written.
    """
    language = cast(Lang, lang) if lang in ("en", "zh") else language_of_environment()
    recipe = load_recipe(model) if model else None
    if fix and max_images is not None:
        raise UserError("--fix needs to see every picture; leave out --max-images")
    sources = find_sources(data, train_json=train_json, val_json=val_json, images=images)
    for folder in (fix, report):
        _check_output(folder, sources)
    if fix and fix.exists():
        raise UserError(f"{fix}: exists already; remove it, or choose another folder with --fix")
    with _progress() as stage:
        checked = check_sources(sources, max_images=max_images, stage=stage)
        ceiling = None
        if recipe and checked.files:
            with stage(f"{model}"):
                for file in checked.files.values():
                    check_sizes_for(file, recipe, checked.findings)
                ceiling = mask_ceiling(list(checked.files.values())[-1], recipe)
        page = None
        if report:
            options: dict[str, Any] = {"lang": language, "ceiling": ceiling, "partial": max_images is not None}
            page = write_report(checked, sources, report, **options, stage=stage)
        mended = repair(checked, sources, fix, stage=stage) if fix else None

    passed = not checked.findings.count("error")
    if as_json:
        tree = as_plain(checked, language, ceiling) | ({"fix": mended.as_dict()} if mended else {})
        print(orjson.dumps(tree, option=orjson.OPT_INDENT_2, default=str).decode())
        return passed or mended is not None
    words = WORDS[language]
    console = Console(highlight=False, soft_wrap=True, markup=False)
    _print(console, checked, sources, language)
    if max_images is not None:
        console.print(words["partly"].format(count=max_images))
    if ceiling:
        console.print(words["ceiling"].format(**{**vars(ceiling), "ap": 100 * ceiling.ap}))
    if page:
        console.print(words["report"].format(file=page))
    if mended:
        console.print(words["fixed"].format(**mended.counts(), folder=fix, log=mended.log))
    return passed or mended is not None


def language_of_environment() -> Lang:
    """The language that LC_ALL, LC_MESSAGES or LANG names, if it is Chinese; else English."""
    named = next(filter(None, (os.environ.get(key) for key in ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "zh" if named.lower().startswith("zh") else "en"


def as_plain(checked: Checked, lang: Lang, ceiling: Ceiling | None) -> dict[str, Any]:
    """Everything found, as plain data."""
    findings = checked.findings
    return {
        "passed": not findings.count("error"),
        **{f"{severity}s": findings.count(severity) for severity in SEVERITIES},
        "splits": {
            name: {
                "file": str(file.path),
                "pictures": len(file.files),
                "annotations": len(file.sections["annotations"]),
                "classes": list(file.classes.values()),
            }
            for name, file in checked.files.items()
        },
        "seconds": {name: round(seconds, 3) for name, seconds in checked.seconds.items()},
        "ceiling": vars(ceiling) if ceiling else None,
        "findings": [finding.as_dict(lang) for finding in findings],
    }


def _print(console: Console, checked: Checked, sources: tuple[Source, ...], lang: Lang) -> None:
    words, findings = WORDS[lang], checked.findings
    for source in sources:
        file = checked.files.get(source.name)
        if file is None:
            console.print(words["unread"].format(name=f"{source.name} {source.json_path}"))
            continue
        objects, classes = len(file.sections["annotations"]), len(file.classes)
        name = f"{source.name} {source.json_path}"
        console.print(words["split"].format(name=name, pictures=len(file.files), objects=objects, classes=classes))
    grouped = findings.by_code()
    styles = {"error": "bold red", "warning": "bold yellow", "note": "bold"}
    for severity, title in SEVERITIES.items():
        here = [groups for groups in grouped.values() if groups[0].code.severity == severity]
        if here:
            console.print(f"\n{title[lang]}", style=styles[severity])
        for groups in here:
            _print_code(console, groups, lang)
    passed = not findings.count("error")
    counts = {severity: findings.count(severity) for severity in SEVERITIES}
    console.print()
    console.print(words["passed" if passed else "failed"], style="bold green" if passed else "bold red")
    console.print(words["counts"].format(**counts, seconds=sum(checked.seconds.values())))


def _print_code(console: Console, groups: list[Found], lang: Lang) -> None:
    code, count = groups[0].code, sum(map(len, groups))
    console.print(f"  {code.name} × {count}", style="bold")
    shown = 0
    for found in groups:
        for finding in (found[i] for i in range(min(len(found), SHOWN - shown))):
            shown += 1
            place = f"{found.file.path.name} {finding.place}".rstrip()
            console.print(f"    {place}: {finding.text(lang)}")
    if count > shown:
        console.print("    " + WORDS[lang]["more"].format(count=count - shown))
    console.print(f"    → {code.advice[lang]}", style="dim")


def _check_output(folder: Path | None, sources: tuple[Source, ...]) -> None:
    if folder is None:
        return
    for source in sources:
        inside = [source.json_path.parent, *source.folders[:-1]]
        if any(folder.resolve() == place.resolve() for place in [*inside, source.root]):
            raise UserError(f"{folder}: is part of the dataset, which is not touched; choose another folder")


@contextmanager
def _progress() -> Iterator[Stage]:
    """A bar on the screen for each stage of the work."""
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

        @contextmanager
        def stage(name: str) -> Iterator[Advance]:
            task = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
            bar.update(task, visible=False)

        yield stage

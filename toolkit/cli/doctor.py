"""`seg-tune doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from toolkit.doctor import Report


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print checks and facts as JSON, as for a bug report.")] = False,
) -> None:
    """Check this installation and machine: packages, engines, devices, limits, places that are written to.

    Exit code 0: all is well, or there are warnings alone. Exit code 1: something is an error, and is shown with the
    commands that put it right.
    """
    from toolkit.doctor import examine

    report = examine()
    if json:
        from json import dumps

        typer.echo(dumps(report.as_dict(), indent=2))
    else:
        _print(report)
    raise typer.Exit(1 if report.status == "error" else 0)


def _print(report: Report) -> None:
    width = max(len(check.name) for check in report.checks)
    colours = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "error": typer.colors.RED}
    for check in report.checks:
        typer.echo(f"{typer.style(f'{check.status:7}', fg=colours[check.status])}  {check.name:{width}}  {check.text}")
        for line in check.fix:
            typer.echo(f"{'':7}  {'':{width}}  -> {line}")
    counts = {status: sum(check.status == status for check in report.checks) for status in ("error", "warning")}
    said = [f"{count} {status}{'' if count == 1 else 's'}" for status, count in counts.items() if count]
    typer.echo(f"seg-tune {report.version}: {', '.join(said) or 'all is well'}")

"""`seg-tune review`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def review(
    run: Annotated[Path | None, typer.Argument(help="Run whose best model looks; the newest by default.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="New folder: of the review, or with --merge of the dataset.")
    ] = Path("review"),
    unlabelled: Annotated[Path | None, typer.Option(help="Folder of pictures without annotations, ranked too.")] = None,
    data: Annotated[Path | None, typer.Option(help="Another dataset; by default the run's.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many pictures to write, the most worth a look.")] = 50,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Least score of what is shown; else the recipe's.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, gpu:0 and so on.")] = "auto",
    merge: Annotated[
        Path | None, typer.Option(help="A review that was corrected: take it into a copy of its dataset.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="With --merge: hard-link the pictures.")] = False,
) -> None:
    """Write the pictures that are most worth correcting for LabelMe; take them in when they come back."""
    if merge is not None:
        from toolkit.review.merge import merge_reviewed

        log = merge_reviewed(merge, output, link=link)
        taken = [line for line in log if line["taken"] == "yes"]
        for line in taken:
            before, after = line.get("before", {}), line.get("after", {})
            left = f", {line['undecided']} suggestions undecided" if line["undecided"] else ""
            typer.echo(f"{line['picture']}: {before or 'no annotations'} -> {after or 'no annotations'}{left}")
        typer.echo(f"{len(taken)} of {len(log)} pictures taken in; the others were not saved since they were written")
        return
    from toolkit.review.write import review_run

    review_run(run, output, unlabelled=unlabelled, data=data, count=count, threshold=threshold, device=device)

"""`seg-tune serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.predict import HpiConfig, UseHpip


def serve(
    pipeline: Annotated[
        str,
        typer.Option(help="Pipeline config, folder of an exported model, or the newest run's exported model."),
    ] = "instance_segmentation",
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    device: Annotated[str | None, typer.Option(help="cpu, gpu:0 and so on; else the config's, else cpu.")] = None,
    engine: Annotated[str | None, typer.Option(help="What runs the model; chosen by itself if not given.")] = None,
    use_hpip: UseHpip = None,
    hpi_config: HpiConfig = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with the model.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long a request may wait; then 503.")] = 30.0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of a picture.")] = 50_000_000,
    max_body: Annotated[int, typer.Option(min=1, help="Of a request, in MB.")] = 64,
    url_host: Annotated[
        list[str] | None, typer.Option(help="A host that pictures may be fetched from; none by default.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="SEG_TUNE_TOKEN", help="Asked of clients as Authorization: Bearer.")
    ] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Replay the export's sample picture, say how it went, and leave.")
    ] = False,
    visualize: Annotated[
        bool | None,
        typer.Option(
            "--visualize/--no-visualize",
            help="Send the drawn picture where a request does not say; else as the config's Serving has it, else yes.",
        ),
    ] = None,
) -> None:
    """Serve a pipeline over HTTP, as PaddleX's clients speak it, with a page to try it."""
    from toolkit.serve.app import Settings
    from toolkit.serve.limits import Limits
    from toolkit.serve.run import check
    from toolkit.serve.run import serve as run

    limits = Limits(body_bytes=max_body * 2**20, pixels=max_pixels, seconds=seconds)
    settings = Settings(
        pipeline=pipeline,
        device=device,
        engine=engine,
        use_hpip=use_hpip,
        hpi_config=hpi_config,
        visualize=visualize,
        token=token,
        url_hosts=[name.lower() for name in url_host or []],
        limits=limits,
    )
    if self_test:
        check(settings)
        return
    run(settings, host=host, port=port, workers=workers)

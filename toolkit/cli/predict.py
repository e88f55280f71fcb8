"""`seg-tune predict`."""

from __future__ import annotations

from typing import Annotated

import typer

Tiles = Annotated[
    str | None,
    typer.Option(help="Tiles of large pictures, as '{size: [640, 640]}', or off; else as the model was trained."),
]
UseHpip = Annotated[
    bool | None,
    typer.Option(
        "--use-hpip/--no-use-hpip",
        "--use_hpip/--no_use_hpip",
        help="Engines of lower precision too, if they are as good; else the config's.",
    ),
]
HpiConfig = Annotated[
    str | None, typer.Option("--hpi-config", "--hpi_config", help="Which one: '{backend: openvino}', as in PaddleX.")
]


def predict(
    input: Annotated[str, typer.Option(help="Picture, PDF or video, its URL, or folder of pictures.")],
    pipeline: Annotated[
        str,
        typer.Option(help="Pipeline config, folder of an exported model, or the newest run's exported model."),
    ] = "instance_segmentation",
    threshold: Annotated[
        str | None,
        typer.Option(help="Least score, or scores by class: '{cat: 0.3}'; else the config's, else the model's."),
    ] = None,
    save_path: Annotated[
        str | None, typer.Option("--save-path", "--save_path", help="Folder for the drawn pictures and the JSON.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, gpu:0, npu:0, xpu:0, mlu:0; several: gpu:0,1 or cpu:2. By default the config's."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="onnxruntime, openvino, paddle, ... (docs/engines.md); the fastest exact one if not given."),
    ] = None,
    use_hpip: UseHpip = None,
    hpi_config: HpiConfig = None,
    tiling: Tiles = None,
) -> None:
    """Find the instances in pictures, with their masks."""
    from toolkit.pipeline.predictor import predict_files

    predict_files(
        input,
        pipeline=pipeline,
        threshold=threshold,
        save_path=save_path,
        device=device,
        engine=engine,
        use_hpip=use_hpip,
        hpi_config=hpi_config,
        tiling=tiling,
    )

"""What `seg-tune eval` measures, and options that do not go together."""

from __future__ import annotations

import pytest

from toolkit.cli.eval import evaluate
from toolkit.errors import UserError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"exported": "a", "url": "b"}, "--exported and --url: each says what is measured; give one of them"),
        ({"engine": "paddle"}, "--engine: has no meaning here; it goes with --exported"),
        (
            {"url": "http://x", "batch_size": 2},
            "--batch-size: has no meaning with --url; it goes with --weights or --exp",
        ),
        ({"predictions": "a.json", "model": "SOLOv2"}, "--model: has no meaning with --predictions; it goes with --w"),
        ({"exported": "a", "model": "SOLOv2"}, "--model: has no meaning with --exported; it goes with --weights"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(**options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(said)

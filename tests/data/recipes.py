"""Recipes that say nothing but what a test of data is about."""

from __future__ import annotations

from typing import Any

from toolkit.recipe import Recipe, parse_recipe


def plain_recipe(*, data: dict[str, Any], train: dict[str, Any], **sections: Any) -> Recipe:
    """One epoch at a constant rate, with these settings of `data` and `train`, and other sections as they are given."""
    return parse_recipe(
        {
            "model": {"name": "PP-YOLOE_seg-S"},
            "data": data,
            "train": {
                "epochs": 1,
                "lr": 1,
                "lr_batch_size": 1,
                "optimizer": {"name": "AdamW"},
                "schedule": {"name": "constant"},
                **train,
            },
            **sections,
        },
        origin="test",
    )

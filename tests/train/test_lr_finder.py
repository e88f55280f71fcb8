from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.pictures import write_dataset
from toolkit.errors import UserError
from toolkit.models import ppyoloe_seg
from toolkit.train.lr_finder import find_lr, steepest


def test_the_steepest_place_is_found() -> None:
    rates = np.logspace(-6, 0, 100)
    losses = 3 - 2 / (1 + np.exp(-4 * (np.log10(rates) + 3)))  # falls fastest at 1e-3
    assert steepest([(r, v, v) for r, v in zip(rates, losses, strict=True)]) == pytest.approx(1e-3, rel=0.2)


def test_a_loss_that_never_falls_is_said() -> None:
    with pytest.raises(UserError, match="falls at none"):
        steepest([(1e-6 * 2**i, float(i), float(i)) for i in range(20)])
    with pytest.raises(UserError, match="lower rates"):
        steepest([(1e-6, 1.0, 1.0)])


def test_a_rate_is_found_for_a_model(tmp_path: Path) -> None:
    overrides = {
        "model.options": ppyoloe_seg.TINY,
        "data.path": str(write_dataset(tmp_path / "data")),
        "data.input_size": [64, 64],
        "data.workers": 0,
        "train.batch_size": 4,
        "train.pretrained": "none",
    }
    table = tmp_path / "rates.csv"
    lr = find_lr("PP-YOLOE_seg-S", overrides=overrides, device="cpu", steps=30, low=1e-5, high=1e-1, table=table)
    with table.open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates[0] == pytest.approx(2e-5), "at the recipe's own batch size of 8"
    assert lr in rates
    assert rates == sorted(rates)

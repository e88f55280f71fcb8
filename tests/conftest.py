import os
from pathlib import Path

import pytest
from hypothesis import settings

# As many processes as cores run at once.
os.environ["OMP_NUM_THREADS"] = "1"

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("accelerator", "acceptance test of a device: pytest -m accelerator --device gpu:0")
    group.addoption("--device", default="auto", help="gpu:0, npu:0, xpu:0, mlu:0, cpu; by default the first there is")
    # Written apart from its option, a file that exists already would tell pytest where the tests are.
    group.addoption(
        "--report", type=Path, default=Path("accelerator-report.md"), help="file for the report, as --report=FILE"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if config.option.markexpr == "accelerator":
        # One check after the other, so that each has the device to itself.
        config.option.numprocesses, config.option.dist = 0, "no"


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is remembered about engines on this machine is none of the tests' business, nor theirs of the machine."""
    os.environ.setdefault("SEG_TUNE_CACHE", str(tmp_path_factory.mktemp("cache")))

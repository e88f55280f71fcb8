"""How far the models are from the golden figures, in the arithmetics that this processor offers.

    python -m tests.golden [--arithmetics] [MODEL ...]

Prints a line a model: the largest deviation of each kind, and what is over its tolerance. `--arithmetics` does so for
each of `ARITHMETICS`, in a process of its own. Exit status 1 if anything is over.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

ARITHMETICS: dict[str, dict[str, str]] = {
    "default": {},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "Intel's general instructions": {"MKL_DEBUG_CPU_TYPE": ""},
    "AVX2 by its number": {"MKL_DEBUG_CPU_TYPE": "5"},
    "AVX2 by its name": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "the same bits on all processors": {"MKL_CBWR": "COMPATIBLE"},
}


def report(models: list[str]) -> bool:
    """Print the deviations of `models`; whether all are within their tolerances."""
    warnings.filterwarnings("ignore")
    from tests.golden import reference

    fine = True
    for name in models or reference.MEASURED:
        deviations = {**reference.inference(name), **reference.training(name)}
        if name == "Mask-RT-DETR-S":
            noisy = reference.training(name, prefix="train_dn", steps=2, num_denoising=100)
            deviations |= {key.replace("gradient of", "gradient with denoising of"): off for key, off in noisy.items()}
        worst: dict[str, float] = {}
        for key, (value, _) in deviations.items():
            kind = _kind(key)
            worst[kind] = max(worst.get(kind, 0.0), value)
        over = reference.over(deviations)
        fine &= not over
        print(
            name, *(f"{kind} {value:.1e}" for kind, value in worst.items()), f"OVER: {over}" if over else "", flush=True
        )
    return fine


def _kind(key: str) -> str:
    if "/" in key:
        step, _, loss = key.partition("/")[2].partition("/")
        return "mask loss" if loss in ("loss_mask", "loss") else f"losses of {step}"
    return "gradient" if key.startswith("gradient") else key


def main() -> int:
    models = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    if "--arithmetics" not in sys.argv:
        return int(not report(models))
    failed = 0
    for name, variables in ARITHMETICS.items():
        print(f"{name}: {variables}", flush=True)
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **variables}
        failed |= subprocess.run([sys.executable, "-m", "tests.golden", *models], env=environment).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())

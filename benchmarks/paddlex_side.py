"""Run by PaddleX's Python: times PaddleX on the pictures that are named on its input, one answer a line.

python paddlex_side.py MODEL FOLDER THRESHOLD [RUN_MODE]
"""

import json
import sys
import time

import numpy as np
from paddlex import create_model
from pycocotools import mask as codec

name, folder, threshold, *run_mode = sys.argv[1:]
settings = {"engine": "paddle_static", "engine_config": {"run_mode": run_mode[0]}} if run_mode else {}
model = create_model(name, folder, device="cpu", **settings)
print("@ ready", flush=True)
for line in sys.stdin:
    start, cpu = time.perf_counter(), time.process_time()
    [result] = model.predict(line.rstrip("\n"), threshold=float(threshold), batch_size=1)
    rles = []
    for box, mask in zip(result["boxes"], result["masks"], strict=True):
        # Its masks are cut to their boxes.
        left, top = (round(side) for side in box["coordinate"][:2])
        whole = np.zeros(result["input_img"].shape[:2], np.uint8, order="F")
        whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        rles.append(codec.encode(whole))
    took = {"ms": 1000 * (time.perf_counter() - start), "cpu_ms": 1000 * (time.process_time() - cpu)}
    print("@", json.dumps({**took, "instances": len(rles)}), flush=True)

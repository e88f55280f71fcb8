"""Run by PaddleX's Python: predictions of a pipeline config, as PaddleX makes them.

python paddlex_side.py CONFIG OUTPUT.npz THRESHOLD PICTURE...
"""

import json
import sys

import numpy as np
from paddlex import create_pipeline

config, output, threshold, *pictures = sys.argv[1:]
pipeline = create_pipeline(config)
arrays = {}
for number, result in enumerate(pipeline.predict(pictures, threshold=float(threshold))):
    arrays[f"{number}/boxes"] = json.dumps(result.json["res"]["boxes"])
    for row, mask in enumerate(result["masks"]):
        arrays[f"{number}/mask/{row}"] = mask
np.savez(output, **arrays)

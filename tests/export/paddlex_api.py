"""What can be seen of the public API from outside, as JSON: run by PaddleX's Python with `paddlex`, by this one with
`toolkit`.

python paddlex_api.py MODULE MODEL_NAME MODEL_DIR INPUTS OUTPUT
"""

import contextlib
import inspect
import io
import json
import os
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np

THRESHOLD = 0.05


def kind(value):
    """Type and shape; numbers of all kinds are one, since PaddleX has an int where a box is cut to the picture."""
    if isinstance(value, np.ndarray):
        return ["array", value.ndim, value.dtype.kind in "iu", bool(value.flags.writeable)]
    if isinstance(value, dict):
        return {key: kind(one) for key, one in value.items()}
    if isinstance(value, list):
        return ["list", kind(value[0]) if value else None]
    if isinstance(value, (int, float, np.number)):
        return "number"
    return type(value).__name__


def facts(result, root):
    boxes = [[box["cls_id"], box["label"], round(float(box["score"]), 2)] for box in result["boxes"]]
    path = result["input_path"]
    return {
        "keys": list(result),
        "kinds": kind(dict(result)),
        "json": kind(result.json),
        "img": {key: [image.mode, image.size] for key, image in result.img.items()},
        "input_path": path and os.path.relpath(path, root),
        "page_index": result["page_index"],
        "boxes": boxes,
        "cut": [list(mask.shape) for mask in result["masks"]],
        "first pixels": result["input_img"][:2, :2].tolist(),
        "drawable": cv2.rectangle(result["input_img"].copy(), (0, 0), (1, 1), (0, 0, 0)) is not None,
    }


def printed(call, module):
    """What `print` shows; PaddleX logs it."""
    out = io.StringIO()
    if module.__name__ == "paddlex":
        from paddlex.utils import logging

        logging.info = lambda text: out.write(f"{text}\n")
        call()
    else:
        with contextlib.redirect_stdout(out):
            call()
    return out.getvalue()


def main(name, model_name, model_dir, inputs, output):
    module = import_module(name)
    module_config = {"module_name": "instance_segmentation", "model_name": model_name, "model_dir": model_dir}
    # The exported model's own: PaddleX 3.7.2 does not look at the config's.
    module_config |= {"batch_size": 1, "threshold": THRESHOLD}
    config = {"pipeline_name": "instance_segmentation", "SubModules": {"InstanceSegmentation": module_config}}
    pipeline = module.create_pipeline(config=config, device="cpu", use_hpip=False)
    picture, saved = f"{inputs}/ä 1.png", Path(output).with_suffix("")
    given = {
        "picture": picture,
        "folder": inputs,
        "pdf": f"{inputs}/doc.pdf",
        "list": [f"{inputs}/b.jpg", cv2.imread(picture)],
    }
    seen = {
        key: [facts(r, inputs) for r in pipeline.predict(value, threshold=THRESHOLD)] for key, value in given.items()
    }
    for key in ("picture", "pdf"):
        for result in pipeline.predict(given[key], threshold=THRESHOLD):
            result.save_all(save_path=f"{saved}/{key}")
            result.save_to_json(f"{saved}/{key}/named.json", indent=None, ensure_ascii=True)
            result.save_to_img(f"{saved}/{key}/named.jpg")
            result.save_to_json(save_path=f"{saved}/{key}/a.folder")
            result.save_to_img(save_path=f"{saved}/{key}/a.folder")
    [first] = pipeline.predict(picture, threshold=0.3)
    shown = printed(lambda: first.print(json_format=True, indent=2, ensure_ascii=True), module)
    files = sorted(path.relative_to(saved).as_posix() for path in saved.rglob("*.*") if path.is_file())
    trees = {path: json.loads((saved / path).read_text(encoding="utf-8")) for path in files if path.endswith(".json")}
    model = module.create_model(model_name, model_dir, batch_size=2, device="cpu")
    named = module.create_model(model_name=model_name, model_dir=model_dir, threshold=0.4)
    seen |= {
        "default threshold": [len(result["boxes"]) for result in pipeline.predict(picture)],
        "is a generator": inspect.isgenerator(pipeline.predict(picture)),
        "print": {"keys": list(json.loads(shown)["res"]), "masks": json.loads(shown)["res"]["masks"]},
        "print escapes": "\\u00e4" in shown and "ä" not in shown,
        "print indent": shown.splitlines()[1],
        "print of python": printed(first.print, module)[:60].replace(inputs, ""),
        "files": files,
        "keys of files": {path: list(tree) for path, tree in trees.items()},
        "kinds of files": {path: kind(tree) for path, tree in trees.items()},
        "escapes": {path: "\\u00e4" in (saved / path).read_text(encoding="utf-8") for path in trees},
        "lines": {path: (saved / path).read_text(encoding="utf-8")[:20] for path in trees},
        "model": [
            len(result["boxes"])
            for results in (
                model.predict([picture, f"{inputs}/b.jpg"], 1, threshold=THRESHOLD),
                model.predict(picture),
                model(picture, threshold=0.3),
                named.predict(picture),
            )
            for result in results
        ],
    }
    Path(output).write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

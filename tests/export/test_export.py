"""A tiny model of each family: exported, run on every backend, predicted with."""

from __future__ import annotations

import dataclasses
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import paddle
import pytest
import yaml
from paddle import nn

from tests.export.conftest import (
    CLASSES,
    HAS_OPENVINO,
    SIZE,
    SPREAD,
    Exported,
    filled,
    needs_openvino,
    pictures,
    recipe_of,
    tiny,
)
from tests.pipeline.samples import swapped
from toolkit import create_pipeline
from toolkit.data.coco import Annotation
from toolkit.data.detections import Detections
from toolkit.data.masks import mask_to_rle
from toolkit.data.preprocess import Prepared, steps_of
from toolkit.errors import UserError
from toolkit.export import certificate, run
from toolkit.export.run import export_model
from toolkit.export.static import save_program
from toolkit.pipeline.backends import load_backend
from toolkit.pipeline.backends.engines import load_engine
from toolkit.pipeline.backends.paddle import PaddleInference
from toolkit.pipeline.certificate import MATCHED, Certificate, compare
from toolkit.pipeline.exported import read_exported

needs_onnx = pytest.mark.skipif(find_spec("paddle2onnx") is None, reason="paddle2onnx is not here")


def test_the_folder_holds_what_it_should(exported: Exported) -> None:
    names = {"inference.json", "inference.pdiparams", "inference.yml", "certificate.json", "README.md", "sample"}
    if find_spec("paddle2onnx"):
        names.add("inference.onnx")
    assert {path.name for path in exported.folder.iterdir()} == names
    assert [path.name for path in exported.folder.parent.iterdir()] == [exported.folder.name], "nothing beside it"
    tree = yaml.safe_load((exported.folder / "inference.yml").read_text(encoding="utf-8"))
    assert tree["Global"]["model_name"] == exported.recipe.model.name
    assert tree["label_list"] == CLASSES
    assert tree["draw_threshold"] == 0.05
    padding = ["PadStride"] if exported.recipe.data.keep_ratio else []
    assert [step["type"] for step in tree["Preprocess"]] == ["Resize", "NormalizeImage", "Permute", *padding]
    assert tree["Preprocess"][0]["target_size"] == list(SIZE)


def test_the_certificate_says_what_was_measured(exported: Exported) -> None:
    tree = json.loads((exported.folder / "certificate.json").read_text())
    backends = {"paddle", "paddle_onednn"}
    if find_spec("paddle2onnx"):
        backends |= {"onnxruntime", "openvino", "openvino_bf16"} if HAS_OPENVINO else {"onnxruntime"}
    assert set(tree["backends"]) == backends
    assert tree["pictures"] == 3
    for agreement in tree["backends"].values():
        assert agreement["rows"] > 50, "a check of few rows shows little"
        if agreement["precision"] != "f32":
            assert not agreement["holds"], "without annotations nobody knows"
            continue
        assert agreement["matched"] >= MATCHED * agreement["rows"] - 1
        assert agreement["masks_wrong"] == 0
        assert agreement["mask_iou_mean"] > 0.995


def test_the_card_names_classes_and_figures(exported: Exported) -> None:
    card = (exported.folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {exported.recipe.model.name}\n")
    for name in CLASSES:
        assert name in card
    assert "| paddle_onednn |" in card
    assert "input_size:" in card, "the recipe is in it"


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("onnxruntime", marks=needs_onnx),
        pytest.param("openvino", marks=[needs_onnx, needs_openvino]),
        "paddle",
    ],
)
def test_pipeline_over_the_export(exported: Exported, engine: str) -> None:
    pipeline = create_pipeline(exported.folder, engine=engine)
    assert pipeline.backend.name == engine
    given = [picture[..., ::-1] for picture in exported.pictures]
    results = list(pipeline.predict(given))
    assert len(results) == len(given)
    for picture, result in zip(given, results, strict=True):
        assert all(mask.shape == picture.shape[:2] for mask in result.masks())
        scores = [box["score"] for box in result["boxes"]]
        assert scores == sorted(scores, reverse=True)
        assert min(scores) >= 0.05, "the exported model's own threshold"
    assert sum(len(result["boxes"]) for result in results) > 20


@needs_onnx
def test_engines_agree_and_batches_change_nothing(exported: Exported) -> None:
    model = read_exported(exported.folder)
    prepared = [model.preprocess(picture) for picture in exported.pictures]
    fast = load_backend(model, engine="onnxruntime")
    one_by_one = [fast([picture], threshold=0.01)[0] for picture in prepared]
    together = fast(prepared, threshold=0.01)
    others = [PaddleInference(model)(prepared, threshold=0.01)]
    if HAS_OPENVINO:
        others.append(load_backend(model, engine="openvino")(prepared, threshold=0.01))
    for found in (together, *others):
        agreement = compare(one_by_one, found)
        assert agreement.rows > 50
        assert agreement.holds, agreement.describe()


@needs_onnx
@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_pictures_together_and_alone(exported: Exported, threshold: float) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported.folder / "inference.onnx"), providers=["CPUExecutionProvider"])
    model = read_exported(exported.folder)
    prepared = [model.preprocess(picture) for picture in pictures(sizes=[SIZE] * 3)]

    def outputs(*of: Prepared, least: float = threshold) -> list[np.ndarray]:
        feed = {
            "image": np.stack([picture.image for picture in of]),
            "im_shape": np.array([picture.im_shape for picture in of], np.float32),
            "threshold": np.array([least], np.float32),
        }
        found: list[np.ndarray] = session.run(None, {entry.name: feed[entry.name] for entry in session.get_inputs()})
        return found

    together, whole = outputs(*prepared), outputs(*prepared, least=0.0)
    assert threshold == 1.0 or (together[1] >= threshold).sum() > 50
    for number, picture in enumerate(prepared):
        kept = whole[1][number] >= threshold
        for alone, both, every in zip(outputs(picture), together, whole, strict=True):
            count = kept.sum()
            np.testing.assert_allclose(both[number][:count], every[number][kept], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(alone[0][:count], every[number][kept], rtol=1e-5, atol=1e-5)


@needs_onnx
@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_a_graph_with_an_input_of_a_later_version_is_refused(exported: Exported, tmp_path: Path, engine: str) -> None:
    import onnx

    folder = tmp_path / "later"
    shutil.copytree(exported.folder, folder)
    model = onnx.load(folder / "inference.onnx")
    later = onnx.helper.make_tensor_value_info("limit", onnx.TensorProto.FLOAT, [1])
    model.graph.input.append(later)
    onnx.save(model, folder / "inference.onnx")
    with pytest.raises(UserError, match=r"inference\.onnx: has an input limit, which this version does not know"):
        load_backend(read_exported(folder), engine=engine)


def test_a_batch_of_pictures_of_many_sizes_in_paddles_graph(exported: Exported) -> None:
    """As PaddleX feeds it with a batch size above 1: each mask lies at the top left of the largest picture's size.

    The last picture fills the input, where the ratio is kept, less than the first.
    """
    model = read_exported(exported.folder)
    prepared = [model.preprocess(picture) for picture in exported.pictures]
    prepared = [p for p in prepared if p.image.shape == prepared[0].image.shape]
    assert exported.recipe.data.keep_ratio == (len({p.im_shape for p in prepared}) > 1)
    backend = PaddleInference(model)
    predictor = backend._predictor
    feed = {
        "image": np.stack([p.image for p in prepared]),
        "im_shape": np.array([p.im_shape for p in prepared], np.float32),
        "scale_factor": np.array([p.scale_factor for p in prepared], np.float32),
    }
    assert predictor.get_input_names() == sorted(feed), "PaddleX feeds its arrays in this order"
    for name, value in feed.items():
        predictor.get_input_handle(name).copy_from_cpu(value)
    predictor.run()
    bbox, bbox_num, mask = (predictor.get_output_handle(n).copy_to_cpu() for n in predictor.get_output_names())
    assert bbox.shape[1:] == (6,)
    assert (bbox.dtype, bbox_num.dtype, mask.dtype) == (np.float32, np.int32, np.int32)
    assert mask.shape == (len(bbox), 229, 300)
    start = 0
    for picture, count in zip(prepared, bbox_num, strict=True):
        alone = backend._run(picture)
        own = slice(start, start + count)
        height, width = picture.size
        assert np.allclose(bbox[own], alone[0], atol=1e-3)
        assert (mask[own, :height, :width] != alone[2]).mean() < 1e-4
        assert not mask[own, height:].any()
        assert not mask[own, :, width:].any()
        start += count


@pytest.mark.parametrize("name", ["MaskRCNN-ResNet50-FPN", "PP-YOLOE_seg-S", "SOLOv2"])
def test_a_model_that_finds_nothing(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    for key, value in model.state_dict().items():
        if key.endswith("bias") and any(part in key for part in SPREAD):
            nothing = np.full(value.shape, -100.0, np.float32)
            if "bbox_score" in key:
                nothing[-1] = 100  # The background.
            value.set_value(nothing)
    out = tmp_path / "nothing"
    made = export_model(model, recipe=recipe_of(name), out=out, pictures=pictures()[:1], source="")
    assert {agreement.rows for agreement in made.backends.values()} == {0}
    for engine in ("onnxruntime", "paddle") if find_spec("paddle2onnx") else ("paddle",):
        [result] = create_pipeline(out, engine=engine).predict(pictures()[0], threshold=0.0)
        assert result["boxes"] == []


class _Interpolates(nn.Layer):
    mask_frame = "image"
    mask_clip = False

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2D(3, 4, 3, padding=1)

    def network(
        self, image: paddle.Tensor, im_shape: paddle.Tensor | None = None, threshold: paddle.Tensor | None = None
    ) -> tuple[paddle.Tensor, ...]:
        logits = nn.functional.interpolate(self.conv(image), size=[16, 16], mode="bilinear")
        scores = logits.mean([2, 3])
        boxes = paddle.stack([scores, scores, scores + 1, scores + 1], axis=-1)
        return boxes, scores, scores.astype("int64"), logits


def test_proposals_that_are_hardly_likely_are_proposals(tmp_path: Path) -> None:
    name = "MaskRCNN-ResNet50-FPN"
    model = tiny(name)
    bias = model.state_dict()["rpn_head.rpn_rois_score.bias"]
    bias.set_value(bias - 25)
    made = export_model(
        model, recipe=recipe_of(name), out=tmp_path / name, pictures=pictures(sizes=[SIZE]), source="generated"
    )
    assert {agreement.rows > 20 for agreement in made.backends.values()} == {True}


def test_an_interpolate_in_the_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="holds bilinear_interp"):
        save_program(_Interpolates(), tmp_path, data=recipe_of("PP-YOLOE_seg-S").data)


def test_a_difference_is_refused_with_its_figures(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = certificate.detect

    def shifted(*arguments: Any, **keywords: Any) -> list[Detections]:
        return [dataclasses.replace(found, boxes=found.boxes + 500) for found in measured(*arguments, **keywords)]

    monkeypatch.setattr(certificate, "detect", shifted)
    folder = tmp_path / "again"
    shutil.copytree(exported.folder, folder, ignore=shutil.ignore_patterns("sample"))
    with pytest.raises(UserError, match=r"differs from the trained .*: 0 of \d+ rows matched"):
        certificate.certify(exported.model, folder, exported.pictures, recipe=exported.recipe, source="generated")


@pytest.mark.parametrize("name", ["MaskRCNN-ResNet50-FPN", "PP-YOLOE_seg-S"])
def test_a_model_that_has_hardly_learned_is_exported_with_a_warning_and_a_gross_fault_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = filled(name), tmp_path / name
    size = (128, 192)
    corner = mask_to_rle(np.pad(np.ones((9, 9), np.uint8), ((0, size[0] - 9), (0, size[1] - 9))))
    given: dict[str, Any] = {
        "recipe": recipe_of(name),
        "out": out,
        "pictures": pictures(sizes=[size] * 2),
        "annotations": [[Annotation(1, 0, (0.0, 0.0, 9.0, 9.0), corner, 81, False)]] * 2,
        "source": "generated",
    }
    made = export_model(model, **given)
    assert not made.learnt
    assert all(agreement.holds for agreement in made.backends.values() if agreement.precision == "f32")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "Warning: the model has hardly learned (mask AP 0.0" in card
    monkeypatch.setattr(certificate, "load_engine", lambda *given: swapped(load_engine(*given)))
    with pytest.raises(UserError, match="differs from the trained one on"):
        export_model(model, **given)


@needs_onnx
def test_where_all_scores_are_equal_nothing_is_asked_of_rows_that_ties_decide(tmp_path: Path) -> None:
    """Saturated at 1.0, where engines that sort in another order find other rows."""
    model = filled("PP-YOLOE_seg-S")
    for key, value in model.state_dict().items():
        if "pred_cls" in key and key.endswith("bias"):
            value.set_value(value + 20)
    made = export_model(
        model, recipe=recipe_of("PP-YOLOE_seg-S"), out=tmp_path / "tied", pictures=pictures(), source="generated"
    )
    agreement = made.backends["onnxruntime"]
    assert agreement.tied == agreement.rows > 100
    assert agreement.matched < agreement.rows
    assert agreement.holds
    assert "most of its scores are equal" in (tmp_path / "tied" / "README.md").read_text(encoding="utf-8")


def test_failure_leaves_an_older_export_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "inference"
    said = iter([Certificate("m", 0, "", 0.0, None, {}), UserError("they differ")])

    def certify(*_: Any, **__: Any) -> Certificate:
        verdict = next(said)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    def named(name: str) -> Any:
        return SimpleNamespace(name=name, mask_frame="image", mask_clip=False)

    monkeypatch.setattr(run, "certify", certify)
    monkeypatch.setattr(run, "save_onnx", lambda *_, **__: None)
    monkeypatch.setattr(
        run, "save_program", lambda model, folder, data: (folder / "inference.json").write_text(model.name)
    )
    arguments: dict[str, Any] = {"recipe": recipe_of("PP-YOLOE_seg-S"), "out": out, "pictures": [], "source": ""}
    run.export_model(named("first"), **arguments)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match="they differ"):
        run.export_model(named("second"), **arguments)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out], "nothing half-written stays"
    said = iter([Certificate("m", 0, "", 0.0, None, {})])
    run.export_model(named("third"), **arguments)
    assert (out / "inference.json").read_text() == "third"
    assert list(tmp_path.iterdir()) == [out]


def test_only_an_export_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="exists and is not an exported model; choose another --output"):
        export_model(None, recipe=recipe_of("PP-YOLOE_seg-S"), out=tmp_path, pictures=[], source="")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_paddlex_style_folder_without_our_onnx(exported: Exported, tmp_path: Path) -> None:
    """What PaddleX's own exports hold: the program, its parameters and a plainer inference.yml."""
    for name in ("inference.json", "inference.pdiparams"):
        (tmp_path / name).write_bytes((exported.folder / name).read_bytes())
    plain = {
        "mode": "paddle",
        "draw_threshold": 0.2,
        "metric": "COCO",
        "use_dynamic_shape": False,
        "Global": {"model_name": exported.recipe.model.name},
        "arch": "DETR",
        "min_subgraph_size": 3,
        "Preprocess": steps_of(exported.recipe.data),
        "label_list": CLASSES,
    }
    (tmp_path / "inference.yml").write_text(yaml.safe_dump(plain))
    pipeline = create_pipeline(tmp_path)
    assert pipeline.backend.name == "paddle"
    assert pipeline.threshold == 0.2
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), exported.pictures[1][..., ::-1])
    [there] = pipeline.predict(str(file))
    [here] = create_pipeline(exported.folder).predict(str(file), threshold=0.2)
    assert [b["label"] for b in there["boxes"]] == [b["label"] for b in here["boxes"]]
    assert np.allclose([b["coordinate"] for b in there["boxes"]], [b["coordinate"] for b in here["boxes"]], atol=0.1)

"""The contract of PaddleX's basic serving, and what goes beyond it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pycocotools import mask as codec

from tests.serve.conftest import Fixed, encoded, found_in, listening, text_of
from toolkit.data.masks import full
from toolkit.serve.app import ENDPOINT, PAGE, Settings, create_app
from toolkit.serve.limits import Limits
from toolkit.serve.schemas import Answer

PICTURE = text_of(encoded())


@pytest.fixture
def client(pipeline: Fixed) -> Iterator[TestClient]:
    with TestClient(create_app(pipeline, Settings())) as client:  # type: ignore[arg-type]
        yield client


def post(client: TestClient, **body: Any) -> Any:
    response = client.post(ENDPOINT, json=body)
    tree = response.json()
    assert tree["errorCode"] == (0 if response.status_code == 200 else response.status_code)
    return tree


def test_an_answer_is_paddlex_s_to_the_letter(client: TestClient) -> None:
    tree = post(client, image=PICTURE)
    assert UUID(tree["logId"])
    assert (tree["errorCode"], tree["errorMsg"]) == (0, "Success")
    assert set(tree) == {"logId", "errorCode", "errorMsg", "result"}
    first, second = tree["result"]["instances"]
    assert set(first) == {"bbox", "categoryId", "categoryName", "score", "mask"}
    assert (first["categoryId"], first["categoryName"], second["categoryName"]) == (0, "circle", "rectangle")
    assert first["bbox"] == pytest.approx([4.4, 6.2, 24.3, 26.1], abs=1e-5)
    assert first["score"] == pytest.approx(0.9)
    # The mask inside the box, whose corners are rounded.
    assert first["mask"]["size"] == [20, 20]
    rle = {"size": [20, 20], "counts": first["mask"]["rleResult"].encode()}
    assert np.array_equal(codec.decode(rle), found_in(np.zeros((40, 48, 3))).masks[0].mask)
    drawn = Image.open(io.BytesIO(base64.b64decode(tree["result"]["image"])))
    assert (drawn.format, drawn.size) == ("JPEG", (48, 40))


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", None])
def test_json_is_taken_by_whatever_name(client: TestClient, kind: str | None) -> None:
    """As the tutorial's clients in Node (axios) and PHP send it, which say nothing of JSON."""
    body = json.dumps({"image": PICTURE}).encode()
    response = client.post(ENDPOINT, content=body, headers={"Content-Type": kind} if kind else {})
    assert len(response.json()["result"]["instances"]) == 2


def test_threshold_and_picture_are_asked_for(client: TestClient) -> None:
    tree = post(client, image=PICTURE, threshold=0.7, visualize=False)
    assert [instance["categoryName"] for instance in tree["result"]["instances"]] == ["circle"]
    assert "image" not in tree["result"]


def test_the_settings_say_whether_to_draw_where_the_request_does_not(pipeline: Fixed) -> None:
    with TestClient(create_app(pipeline, Settings(visualize=False))) as client:  # type: ignore[arg-type]
        assert "image" not in post(client, image=PICTURE)["result"]
        assert "image" in post(client, image=PICTURE, visualize=True)["result"]


def test_masks_in_every_form_are_the_same(client: TestClient) -> None:
    expected = [full(mask, (40, 48)) for mask in found_in(np.zeros((40, 48, 3))).masks]
    for form in ("full", "png", "polygon"):
        instances = post(client, image=PICTURE, maskFormat=form)["result"]["instances"]
        for instance, mask in zip(instances, expected, strict=True):
            got = instance["mask"]
            if form == "full":
                found = codec.decode({"size": got["size"], "counts": got["rleResult"].encode()})
            elif form == "png":
                found = np.zeros((40, 48), np.uint8)
                x, y = (round(side) for side in instance["bbox"][:2])
                cut = np.asarray(Image.open(io.BytesIO(base64.b64decode(got["png"])))) // 255
                found[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
            else:
                found = codec.decode(codec.merge(codec.frPyObjects(got["polygons"], 40, 48)))
            assert np.array_equal(found, mask), form


def test_several_pictures_in_one_request(client: TestClient) -> None:
    pictures = [PICTURE, text_of(encoded((60, 50), "JPEG"))]
    results = post(client, images=pictures, visualize=True)["result"]["results"]
    sizes = [Image.open(io.BytesIO(base64.b64decode(result["image"]))).size for result in results]
    assert sizes == [(48, 40), (50, 60)]
    assert post(client, images=[PICTURE] * 17)["errorCode"] == 413


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "give either image or images"),
        ({"image": 3}, 422, "body.image"),
        ({"image": "%%%"}, 422, "neither Base64 nor a URL"),
        ({"image": ""}, 422, "empty"),
        ({"image": text_of(b"no picture at all")}, 422, "not a picture"),
        ({"image": text_of(encoded()[:60])}, 422, "image"),
        ({"image": "http://127.0.0.1/picture.png"}, 403, "URLs are switched off"),
        ({"image": PICTURE, "threshold": 1.5}, 422, "body.threshold"),
        ({"image": PICTURE, "threshold": "high"}, 422, "body.threshold"),
        ({"image": PICTURE, "maskFormat": "cubes"}, 422, "body.maskFormat"),
        ({"images": []}, 422, "body.images"),
        ({"image": PICTURE, "threshold": {"square": 0.3}}, 422, "no class square"),
    ],
)
def test_what_is_wrong_is_said(client: TestClient, body: dict[str, Any], status: int, said: str) -> None:
    tree = post(client, **body)
    assert tree["errorCode"] == status
    assert said in tree["errorMsg"]
    assert "result" not in tree


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"image": "' + b"[" * 100000])
def test_bodies_that_are_no_request(client: TestClient, body: bytes) -> None:
    response = client.post(ENDPOINT, content=body)
    assert response.status_code == 422
    assert response.json()["errorCode"] == 422


def test_large_pictures_and_bodies_are_refused(pipeline: Fixed) -> None:
    settings = Settings(limits=Limits(body_bytes=20_000, pixels=2_000))
    with TestClient(create_app(pipeline, settings)) as client:  # type: ignore[arg-type]
        assert "50 x 41" in post(client, image=text_of(encoded((41, 50))))["errorMsg"]
        assert post(client, image="A" * 30_000)["errorCode"] == 413
        # Without a length in its head.
        assert client.post(ENDPOINT, content=(b"A" * 1000 for _ in range(30))).status_code == 413
    assert pipeline.batches == []


def test_a_body_that_does_not_come_is_not_waited_for(pipeline: Fixed) -> None:
    with listening(pipeline, Settings(limits=Limits(seconds=0.2))) as port:
        head = f"POST {ENDPOINT} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{{"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head.encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_key_is_passed_over_and_the_log_id_comes_back(client: TestClient) -> None:
    assert post(client, image=PICTURE, logId="mine", flavour="any")["logId"] == "mine"


def test_a_failing_network_is_an_error_of_the_service(client: TestClient, pipeline: Fixed) -> None:
    pipeline.error = RuntimeError("the secret inside")
    tree = post(client, image=PICTURE)
    assert (tree["errorCode"], tree["errorMsg"]) == (500, "Internal server error")
    pipeline.error = None
    assert post(client, image=PICTURE)["errorCode"] == 0


def test_a_token_is_asked_for(pipeline: Fixed) -> None:
    with TestClient(create_app(pipeline, Settings(token="opensesame"))) as client:  # type: ignore[arg-type]
        refused = client.post(ENDPOINT, json={"image": PICTURE})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert client.get("/metrics").status_code == 401
        assert client.get("/health").status_code == 200
        headers = {"Authorization": "Bearer opensesame"}
        assert client.post(ENDPOINT, json={"image": PICTURE}, headers=headers).status_code == 200


def test_other_places_answer_in_the_same_form(client: TestClient) -> None:
    assert client.get("/health").json()["errorMsg"] == "Healthy"
    assert client.get("/ready").json()["errorMsg"] == "Ready"
    assert client.get("/nothing").json()["errorCode"] == 404
    assert client.get(ENDPOINT).json()["errorCode"] == 405
    assert client.get("/model").json() == {
        "model": "PP-YOLOE_seg-S",
        "labels": ["circle", "rectangle"],
        "threshold": 0.5,
        "sample": False,
    }
    assert client.get("/sample").json()["errorCode"] == 404


def test_a_sample_is_had_where_the_model_has_one(
    pipeline: Fixed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "one.png").write_bytes(encoded())
    monkeypatch.setattr(pipeline.model, "folder", tmp_path)
    with TestClient(create_app(pipeline, Settings())) as client:  # type: ignore[arg-type]
        assert client.get("/model").json()["sample"] is True
        picture = client.get("/sample")
    assert (picture.headers["content-type"], picture.content) == ("image/png", encoded())


def test_the_description_names_what_there_is(client: TestClient) -> None:
    tree = client.get("/openapi.json").json()
    operation = tree["paths"][ENDPOINT]["post"]
    assert set(operation["requestBody"]["content"]["application/json"]["schema"]["properties"]) >= {
        "image",
        "threshold",
        "visualize",
    }
    assert "rleResult" in json.dumps(tree["components"])
    Answer.model_validate(operation["responses"]["200"]["content"]["application/json"]["example"])
    assert post(client, **operation["requestBody"]["content"]["application/json"]["example"])["errorCode"] == 0


def test_figures_are_counted(client: TestClient) -> None:
    before = figures(client)
    post(client, image=PICTURE)
    post(client, image="%%%")
    after = figures(client)
    for name in ('segtune_requests_total{status="200"}', 'segtune_requests_total{status="422"}'):
        assert after[name] == before.get(name, 0) + 1
    assert after['segtune_stage_seconds_count{stage="network"}'] > before.get(
        'segtune_stage_seconds_count{stage="network"}', 0
    )
    assert after["segtune_pictures_inside"] == 0
    if sys.platform == "linux":
        assert after[f'segtune_resident_memory_bytes{{pid="{os.getpid()}"}}'] > 10_000_000


def figures(client: TestClient) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.parametrize(("path", "links"), [("/", {"docs"}), ("/docs", {"./", "openapi.json"})])
def test_the_pages_need_nothing_from_elsewhere(client: TestClient, path: str, links: set[str]) -> None:
    page = client.get(path)
    assert page.headers["content-type"].startswith("text/html")
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page.text)) - {"data:,"}
    parts = {f"page/{file.name}" for file in PAGE.iterdir()} & named
    assert {part.rpartition(".")[2] for part in parts} == {"css", "js"}
    assert named == parts | links
    for text in (page.text, *(client.get(f"/{part}").raise_for_status().text for part in parts)):
        assert "://" not in text
    for link in links:
        assert client.get(f"/{link.removeprefix('./')}").status_code == 200


def test_no_other_page_shows_the_description(client: TestClient) -> None:
    assert client.get("/redoc").status_code == 404

"""The service: `POST /instance-segmentation` as PaddleX's clients speak it, and what operators want to know."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from toolkit import __version__, cores
from toolkit.pipeline.predictor import Pipeline, create_pipeline
from toolkit.pipeline.result import Result
from toolkit.serve import metrics
from toolkit.serve.answers import as_result
from toolkit.serve.body import Body
from toolkit.serve.desk import Desk
from toolkit.serve.limits import Limits, RefusedError, bytes_of, check_head
from toolkit.serve.schemas import Answer, InferRequest, answer
from toolkit.serve.urls import fetch, is_url

ENDPOINT = "/instance-segmentation"
PAGE = Path(__file__).parent / "page"
LOG = logging.getLogger("seg-tune.serve")
REQUEST_EXAMPLE: dict[str, Any] = {
    # Eight by eight grey pixels.
    "image": "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mM8wQABTAwUMQA6AADYbMmlZgAAAABJRU5ErkJggg==",
    "threshold": 0.5,
    "visualize": False,
}
RESULT_EXAMPLE: dict[str, Any] = {
    "instances": [
        {
            "bbox": [12.5, 30.1, 16.4, 32.9],
            "categoryId": 0,
            "categoryName": "circle",
            "score": 0.93,
            "mask": {"rleResult": "11150K0", "size": [3, 4]},
        }
    ]
}
Value = TypeVar("Value")


class Settings(BaseModel):
    """How the service is run; handed to its worker processes through the environment."""

    pipeline: str = "instance_segmentation"
    device: str | None = None
    engine: str | None = None
    use_hpip: bool | None = None
    hpi_config: str | None = None
    visualize: bool | None = None
    """Where a request does not say; None is what the pipeline's config says."""
    token: str | None = None
    """Asked for as `Authorization: Bearer`."""
    url_hosts: list[str] = []
    """Hosts from which pictures may be fetched."""
    limits: Limits = Limits()

    def load(self) -> Pipeline:
        """Raises UserError."""
        return create_pipeline(
            self.pipeline,
            device=self.device,
            engine=self.engine,
            use_hpip=self.use_hpip,
            hpi_config=self.hpi_config,
        )


def create_app(pipeline: Pipeline, settings: Settings, *, seconds: float = 0.0) -> FastAPI:
    """The service of `pipeline`, which takes `seconds` for a picture, as far as is known."""
    service = _Service(pipeline, settings, seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.open()
        yield
        service.close()

    title = f"seg-tune: {pipeline.model.model_name}"
    # FastAPI's own pages of the description load their scripts from elsewhere, which not every network lets them.
    app = FastAPI(title=title, version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    pictures = sorted((pipeline.model.folder / "sample").glob("*.png"))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return _refusal(None, RefusedError(error.status_code, str(error.detail)))

    @app.get("/health", operation_id="checkHealth", response_model=Answer)
    async def health() -> Response:
        """Whether the process lives."""
        return _json(answer(None, message="Healthy"))

    @app.get("/ready", operation_id="checkReadiness", response_model=Answer)
    async def ready() -> Response:
        """Whether it has a model that answers as it should, and room for requests."""
        try:
            with service.desk.place():
                return _json(answer(None, message="Ready"))
        except RefusedError as error:
            return _refusal(None, error)

    @app.get("/metrics", operation_id="metrics", include_in_schema=False)
    async def figures(request: Request) -> Response:
        if problem := service.unauthorized(request):
            return _refusal(None, problem)
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4")

    @app.get("/sample", include_in_schema=False)
    async def sample() -> Response:
        """A picture to try the model on."""
        if not pictures:
            return _refusal(None, RefusedError(404, "the exported model has no sample"))
        return FileResponse(pictures[0])

    @app.get("/model", operation_id="model")
    async def model() -> Response:
        """Name, classes and threshold of the model; whether `/sample` has a picture to try it on."""
        exported = pipeline.model
        facts = {"model": exported.model_name, "labels": exported.labels, "threshold": pipeline.threshold}
        return _json({**facts, "sample": bool(pictures)})

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", media_type="text/html")

    @app.get("/docs", include_in_schema=False)
    async def description() -> FileResponse:
        """A page that shows `/openapi.json`."""
        return FileResponse(PAGE / "docs.html", media_type="text/html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")

    @app.post(
        ENDPOINT,
        operation_id="infer",
        response_model=Answer,
        responses={
            200: {"content": {"application/json": {"example": answer("0f6b", result=RESULT_EXAMPLE)}}},
            **{code: {"model": Answer} for code in (400, 401, 403, 408, 413, 422, 500, 503)},
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": InferRequest.model_json_schema(), "example": REQUEST_EXAMPLE}
                },
            }
        },
    )
    async def infer(request: Request) -> Response:
        """The instances in one picture, or in several."""
        return await service.infer(request)

    return app


class _Service:
    def __init__(self, pipeline: Pipeline, settings: Settings, seconds: float) -> None:
        self._pipeline, self._settings, self._seconds = pipeline, settings, seconds

    def open(self) -> None:
        self.desk = Desk(self._pipeline, self._settings.limits, seconds=self._seconds)
        self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="pictures")

    def close(self) -> None:
        self.desk.close()
        self._pool.shutdown()

    def unauthorized(self, request: Request) -> RefusedError | None:
        token = self._settings.token
        given = request.headers.get("authorization", "")
        if token is None or hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return None
        return RefusedError(401, "the header Authorization must be: Bearer, and the service's token")

    async def infer(self, request: Request) -> Response:
        start = time.perf_counter()
        facts: dict[str, Any] = {"logId": str(uuid4())}
        body = Body(request, self._settings.limits)
        try:
            response = await self._infer(request, body, facts)
        except RefusedError as error:
            await body.discard()
            response = _refusal(facts["logId"], error)
            facts["error"] = error.message
        except Exception:
            LOG.exception("a request failed")
            response = _refusal(facts["logId"], RefusedError(500, "Internal server error"))
        seconds = time.perf_counter() - start
        metrics.REQUESTS.labels(str(response.status_code)).inc()
        metrics.LATENCY.observe(seconds)
        facts |= {"status": response.status_code, "ms": round(1000 * seconds, 1)}
        LOG.info(orjson.dumps(facts).decode())
        return response

    async def _infer(self, request: Request, body: Body, facts: dict[str, Any]) -> Response:
        if problem := self.unauthorized(request):
            raise problem
        with self.desk.place():
            asked = await self._in_thread(partial(_parse, await body.read()))
            facts["logId"] = asked.logId or facts["logId"]
            facts["pictures"] = len(asked.pictures)
            if len(asked.pictures) > self._settings.limits.pictures:
                raise RefusedError(413, f"images: more than {self._settings.limits.pictures} in one request")
            with self.desk.place(len(asked.pictures) - 1):
                return await self._answer(asked, facts)

    async def _answer(self, asked: InferRequest, facts: dict[str, Any]) -> Response:
        named = asked.threshold if isinstance(asked.threshold, dict) else {}
        if unknown := set(named) - set(self._pipeline.model.labels):
            raise RefusedError(422, f"threshold: no class {sorted(unknown)[0]}")
        files = [await self._file(text) for text in asked.pictures]
        found = await self.desk.find(files, asked.threshold)
        facts["sizes"] = [list(result.size) for result in found]
        facts["instances"] = [len(result["boxes"]) for result in found]
        visualize = self._settings.visualize if asked.visualize is None else asked.visualize
        visualize = True if visualize is None else visualize
        with metrics.STAGE.labels("answer").time():
            return await self._in_thread(partial(_success, asked, found, visualize, facts["logId"]))

    async def _file(self, text: str) -> bytes:
        limits = self._settings.limits
        given = await fetch(text, self._settings.url_hosts, limits) if is_url(text) else text
        return await self._in_thread(partial(_checked, given, limits))

    async def _in_thread(self, call: Callable[[], Value]) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


def _checked(given: str | bytes, limits: Limits) -> bytes:
    file = bytes_of(given) if isinstance(given, str) else given
    check_head(file, limits)
    return file


def _success(asked: InferRequest, found: list[Result], visualize: bool, log_id: str) -> Response:
    results = [as_result(result, mask_format=asked.maskFormat, visualize=visualize) for result in found]
    return _json(answer(log_id, result=results[0] if asked.images is None else {"results": results}))


def _parse(body: bytes) -> InferRequest:
    try:
        return InferRequest.model_validate_json(body)
    except ValidationError as error:
        # As PaddleX has it: a list in JSON, each entry with its place.
        problems = [
            {"type": problem["type"], "loc": ".".join(["body", *map(str, problem["loc"])]), "msg": problem["msg"]}
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise RefusedError(422, orjson.dumps(problems).decode()) from None


def _refusal(log_id: str | None, error: RefusedError) -> Response:
    response = _json(answer(log_id, code=error.status, message=error.message), error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _json(tree: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(tree), status, media_type="application/json")

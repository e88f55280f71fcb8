"""What goes over the wire: PaddleX's basic serving contract, and what is offered beyond it."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator

MaskFormat = Literal["box", "full", "polygon", "png"]
Share = Annotated[float, Field(ge=0, le=1)]


class InferRequest(BaseModel):
    """`image`, or several `images`; other keys are passed over, as PaddleX does."""

    image: str | None = Field(None, description="A picture's file in Base64, or its URL where the service allows that.")
    images: Annotated[list[str], Field(min_length=1)] | None = Field(None, description="Several; see `results`.")
    threshold: Share | dict[str, Share] | None = Field(
        None, description="Least score, for all classes or by name of class; by default the pipeline's."
    )
    visualize: bool | None = Field(None, description="Whether the answer has the picture with the instances drawn.")
    maskFormat: MaskFormat = Field(
        "box",
        description="`box`: RLE of the mask cut to the box rounded to whole pixels; `full`: RLE at the picture's size; "
        "`polygon`: lists of x, y; `png`: the mask cut to the box, a PNG in Base64.",
    )
    logId: str | None = Field(None, description="Comes back in the answer.")

    @model_validator(mode="after")
    def _one_of_both(self) -> InferRequest:
        if (self.image is None) == (self.images is None):
            raise ValueError("give either image or images")
        return self

    @property
    def pictures(self) -> list[str]:
        return [self.image] if self.image is not None else list(self.images or ())


class Mask(BaseModel):
    """Of one instance; the keys depend on `maskFormat`."""

    rleResult: str | None = Field(None, description="COCO's compressed RLE counts.")
    size: tuple[int, int] | None = Field(None, description="Height and width of the mask.")
    polygons: list[list[float]] | None = Field(None, description="x1, y1, x2, y2, ... in pixels of the picture.")
    png: str | None = Field(None, description="Base64 of a PNG, 0 and 255.")


class Instance(BaseModel):
    bbox: tuple[float, float, float, float] = Field(description="x1, y1, x2, y2 in pixels of the picture.")
    categoryId: int
    categoryName: str
    score: float
    mask: Mask


class InferResult(BaseModel):
    instances: list[Instance]
    image: str | None = Field(None, description="The picture with the instances drawn, a JPEG in Base64.")


class SeveralResults(BaseModel):
    results: list[InferResult]


class Answer(BaseModel):
    """What every call returns; an error has its HTTP status for a code."""

    model_config = ConfigDict(extra="allow")

    logId: str
    errorCode: int
    errorMsg: str
    result: InferResult | SeveralResults | None = None


def answer(log_id: str | None, *, code: int = 0, message: str = "Success", result: Any = None) -> dict[str, Any]:
    """An `Answer` as plain data, without what is missing."""
    head = {"logId": log_id or str(uuid4()), "errorCode": code, "errorMsg": message}
    return head if result is None else {**head, "result": result}

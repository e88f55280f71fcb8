"""Rules on masks, boxes and areas that training does not depend on, but results may."""

from __future__ import annotations

import numpy as np

from toolkit.data.findings.crossing import crossing
from toolkit.data.findings.file import File, Flags, Floats, boxes, numbers
from toolkit.data.findings.geometry import Parts, polygons_of
from toolkit.data.findings.record import Findings
from toolkit.data.masks import rle_area, segmentation_to_rle

OUTSIDE = 1.0
"""Pixels that an outline may lead out of its picture."""
BOX_PIXELS, BOX_PART = 2.0, 0.02
"""How far a box may be off the mask's: pixels, and part of its longer side."""
AREA_PIXELS, AREA_PART = 16.0, 0.1
"""How far an area may be off the mask's."""
CROSSED_PIXELS, CROSSED_PART = 4.0, 0.25
"""Pixels, and pixels for each of the outline, that an outline's area may be off the area of its mask."""
TINY, HUGE, THIN = 16.0, 0.95, 20.0
"""Square pixels, part of the picture, length / width."""


def check_shapes(file: File, parts: Parts, findings: Findings) -> None:
    """Rules on what the masks look like."""
    outlines = file.outlines
    assert outlines is not None
    owner = outlines.owner
    has_polygons = np.diff(outlines.first) > 0
    has_rle = np.zeros_like(has_polygons)
    has_rle[list(outlines.rles)] = True
    size = file.frame[file.image][:, ::-1] if len(file.frame) else np.zeros((len(file.image), 2))

    few = np.zeros_like(has_polygons)
    few[findings.rows("polygon-few-points", file)] = True
    nothing = file.measured & ~has_polygons & ~has_rle & ~few
    _add(findings, "segmentation-missing", file, nothing)

    ok = file.measured[owner]
    crosses = crossing(outlines.points, outlines.start) & ok
    # The two halves of a bow tie cancel each other.
    flat = ok & (parts.area < 1e-9) & ~crosses
    rows = np.flatnonzero(flat)
    findings.add(
        *("polygon-degenerate", file, "annotations", owner[rows]), key="segmentation", part=outlines.part[rows]
    )
    beyond = np.maximum(-parts.low, parts.high - size[owner]).max(1).clip(0)
    away = ((parts.high <= 0) | (parts.low >= size[owner])).any(1)
    inside = np.bincount(owner, ~away, minlength=len(file.image)) > 0
    gone = file.measured & has_polygons & ~inside
    _add(findings, "mask-outside", file, gone)
    _add(findings, "mask-empty", file, file.measured & file.empty & ~gone & (has_polygons | has_rle))
    distance = np.zeros(len(file.image))
    np.maximum.at(distance, owner[ok], beyond[ok])
    rows = np.flatnonzero((distance > OUTSIDE) & ~gone)
    findings.add("polygon-outside", file, "annotations", rows, key="segmentation", distance=distance[rows])

    # Most outlines that cross themselves do so by a fraction of a pixel, which no mask shows.
    rows = np.array([i for i in np.flatnonzero(crosses).tolist() if _lost(file, parts, i)], np.int64)
    findings.add("polygon-crossing", file, "annotations", owner[rows], key="segmentation", part=outlines.part[rows])
    _add(findings, "crowd-polygon", file, file.crowd & has_polygons & file.measured)


def _lost(file: File, parts: Parts, i: int) -> bool:
    """Whether what polygon `i` encloses is not what is drawn of it."""
    outlines = file.outlines
    assert outlines is not None
    height, width = file.frame[file.image[outlines.owner[i]]].tolist()
    polygon = outlines.points[outlines.start[i] : outlines.start[i + 1]].ravel()
    drawn = rle_area(segmentation_to_rle([polygon], (height, width)))
    return abs(drawn - parts.area[i]) > max(CROSSED_PIXELS, CROSSED_PART * parts.length[i])


def check_boxes(file: File, findings: Findings) -> None:
    """Rules on `bbox`."""
    values = file.column("annotations", "bbox")
    given = boxes(values)
    absent = np.array([value is None for value in values], np.bool_)
    _add(findings, "bbox-missing", file, absent & file.sound["annotations"], key="bbox")
    sound = np.asarray(np.isfinite(given).all(1) & (np.nan_to_num(given[:, 2:]) >= 0).all(1))
    _add(findings, "bbox-invalid", file, ~absent & ~sound & file.sound["annotations"], key="bbox")
    rows = np.flatnonzero(sound & ~file.empty)
    box, mask = given[rows], file.box[rows]
    sides = mask[:, 2:] - mask[:, :2]
    limit = np.tile(file.frame[file.image[rows]][:, ::-1], 2)
    off = _distance(np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1), mask, limit)
    tolerance = BOX_PIXELS + BOX_PART * sides.max(1, initial=0)
    corners = (off > tolerance) & (_distance(box, mask, limit) <= tolerance)
    findings.add("bbox-corners", file, "annotations", rows[corners], key="bbox")
    wrong = (off > tolerance) & ~corners
    findings.add("bbox-mismatch", file, "annotations", rows[wrong], key="bbox", distance=off[wrong])


def check_areas(file: File, findings: Findings) -> None:
    """Rules on `area`."""
    values = file.column("annotations", "area")
    given = numbers(values)
    absent = np.array([value is None for value in values], np.bool_)
    _add(findings, "area-missing", file, absent & file.sound["annotations"], key="area")
    sound = np.isfinite(given) & (given > 0)
    wrong = np.flatnonzero(~absent & ~sound & ~file.empty)
    findings.add("area-invalid", file, "annotations", wrong, key="area", value=[values[row] for row in wrong])
    rows = np.flatnonzero(sound & ~file.empty)
    rows = rows[_differ(given[rows], file.area[rows])]
    # Parts that overlap count once.
    actual = np.array([_pixels(file, row) for row in rows.tolist()])
    off = _differ(given[rows], actual)
    rows, actual = rows[off], actual[off]
    findings.add("area-mismatch", file, "annotations", rows, key="area", area=given[rows], actual=actual)


def check_extremes(file: File, findings: Findings) -> None:
    """Rules on sizes and aspect ratios."""
    objects = ~file.empty & ~file.crowd
    frame = file.frame[file.image] if len(file.frame) else np.ones((len(file.image), 2))
    share = file.area / np.maximum(frame.prod(1), 1)
    sides = file.box[:, 2:] - file.box[:, :2]
    ratio = sides.max(1, initial=0) / np.maximum(sides.min(1, initial=np.inf), 1)
    rows = np.flatnonzero(objects & (file.area < TINY))
    findings.add("instance-tiny", file, "annotations", rows, key="segmentation", area=file.area[rows])
    rows = np.flatnonzero(objects & (share > HUGE))
    findings.add("instance-huge", file, "annotations", rows, key="segmentation", percent=100 * share[rows])
    rows = np.flatnonzero(objects & (ratio > THIN))
    findings.add("instance-thin", file, "annotations", rows, key="segmentation", ratio=ratio[rows])


def _add(findings: Findings, code: str, file: File, where: Flags, *, key: str = "segmentation") -> None:
    findings.add(code, file, "annotations", np.flatnonzero(where), key=key)


def _distance(box: Floats, mask: Floats, limit: Floats) -> Floats:
    return np.abs(np.clip(box, 0, limit) - mask).max(1, initial=0)


def _differ(given: Floats, actual: Floats) -> Flags:
    return np.abs(given - actual) > np.maximum(AREA_PIXELS, AREA_PART * np.maximum(given, actual))


def _pixels(file: File, row: int) -> float:
    assert file.outlines is not None
    if row in file.outlines.rles:
        return float(file.area[row])
    height, width = file.frame[file.image[row]].tolist()
    return float(rle_area(segmentation_to_rle(polygons_of(file.outlines, row), (height, width))))

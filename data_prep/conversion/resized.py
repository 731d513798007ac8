"""Resizes the content of a record, for trainings at a smaller size than that of the data set.

Frames are averaged over areas. Flow is resized by the rule of training crops (see
`flowseg.data.augment.resize_sparse_flow`): its valid pixels are interpolated and its vectors scaled
with the size. Labels and ids take the nearest pixel.
"""

from typing import Any

import cv2
import numpy as np

from flowseg.data import flow_io, images

_FLOWS, _IMAGES = ("flow", "flow_noc", "backward_flow"), ("image1", "image2")
_MAPS = ("occlusion", "labels", "instances", "objects")


def resize_fields(fields: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Resize the images and ground truth of a record.

    Args:
        fields: as from `frames.read_frame`.
        height: rows of the result, at most those of the record.
        width: columns of the result, at most those of the record.

    Returns:
        The changed fields: images and id maps as PNG, flow as `.flo`, `height` and `width`.

    Raises:
        ValueError: the record is smaller than the requested size.
    """
    if fields["height"] < height or fields["width"] < width:
        raise ValueError(
            f"frame {fields['frame_id']}: is {fields['height']}x{fields['width']}, smaller than "
            f"records_size={height}x{width}: enlarged records would only take longer to read"
        )
    resized = {"height": height, "width": width}
    for name in _IMAGES:
        if data := fields.get(name):
            image = images.decode(data, name)
            small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            resized[name], resized[f"{name}_format"] = _png(small[..., ::-1]), "png"
    for name in _FLOWS:
        if data := fields.get(name):
            flow = flow_io.decode_flow(data, fields["flow_format"], name)
            small = resize_sparse_flow(flow, height, width)
            resized[name] = flow_io.encode_flo(small[..., :2], small[..., 2])
            resized["flow_format"] = "flo"
    for name in _MAPS:
        if data := fields.get(name):
            ids = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            resized[name] = _png(
                cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            )
    return resized


def resize_sparse_flow(flow: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) (u, v, valid) -> (height, width, 3); see the module's docstring."""
    known = np.float32(flow[..., 2] > 0)
    scale = np.float32([width / flow.shape[1], height / flow.shape[0]])
    planes = np.dstack([np.where(known[..., None] > 0, flow[..., :2], 0), known])
    planes = cv2.resize(planes, (width, height), interpolation=cv2.INTER_LINEAR)
    weight = planes[..., 2:]
    valid = weight >= 0.5
    vectors = np.where(valid, planes[..., :2] / np.maximum(weight, 0.5) * scale, 0)
    return np.dstack([vectors, valid]).astype(np.float32)


def _png(image):
    return cv2.imencode(".png", image)[1].tobytes()

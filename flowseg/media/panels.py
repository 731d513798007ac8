"""Whole pictures of answers and scores: what the report, TensorBoard and the demo show."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from flowseg.data.flow_io import flow_to_color
from flowseg.data.labels import IGNORE_LABEL, LabelSet
from flowseg.media import drawing
from flowseg.media.drawing import color_labels, flow_error_map, panel
from flowseg.network.flow_ops import backward_warp

# Full colour of flow without truth, as a share of the width: 50 px on KITTI.
_UNKNOWN_SPEED = 0.04
# Colours of a confusion matrix.
_RIGHT, _WRONG = (80, 160, 90), (210, 80, 70)


def draw_answers(
    frame: dict[str, Any], seg: np.ndarray | None, flow: np.ndarray | None, label_set: LabelSet
) -> np.ndarray:
    """A frame, its truth, the answers to it and their errors, in one picture.

    Args:
        frame: decoded frame of `decoding.evaluation_data`, in NumPy.
        seg: (H, W) predicted train ids; None: not asked.
        flow: (H, W, 2) predicted flow in px; None: not asked.
        label_set: the classes.

    Returns:
        (H', W', 3) uint8 RGB; truth that the frame lacks, and errors against it, are left out. So
        is the flow of a frame without a second one, which was shown twice: it is noise.
    """
    titled, errors = [("Image", frame["image1"])], []
    if frame["has_image2"]:
        titled.append(("Next image", frame["image2"]))
    labelled = frame["seg"] != IGNORE_LABEL
    if seg is not None:
        if labelled.any():
            titled.append(("Segmentation, true", color_labels(frame["seg"], label_set)))
            wrong = np.where((seg != frame["seg"]) & labelled, 255, 0).astype(np.uint8)
            errors.append(("Segmentation errors", np.repeat(wrong[..., None], 3, -1)))
        # Without truth at the end, so that true and predicted flow stand side by side.
        place = titled if labelled.any() else errors
        place.append(("Segmentation, predicted", color_labels(seg, label_set)))
    if flow is not None and frame["has_image2"]:
        truth, known = frame["flow"], frame["flow"][..., 2] > 0
        # One scale for both flows, that of the truth, so that their colours can be compared; also
        # where there is none it is no matter of the answer, which changes as a training goes on.
        full = _UNKNOWN_SPEED * flow.shape[1]
        if known.any():
            full = float(np.percentile(np.hypot(*truth[known][:, :2].T), 99))
        full = max(1.0, full)
        if known.any():
            colours = flow_to_color(truth[..., :2], full, known)
            titled.append((f"Flow, true (full colour {full:.0f} px)", colours))
            told = "Flow errors (blue under 3 px, yellow to red over)"
            errors.append((told, flow_error_map(flow, truth)))
        told = "Flow, predicted" + f" (full colour {full:.0f} px)" * (not known.any())
        titled.append((told, flow_to_color(flow, full)))
    return panel(titled + errors, 2)


def draw_confusion(matrix: np.ndarray, names: Sequence[str], cell: int = 30) -> np.ndarray:
    """A confusion matrix: in each row, how many percent of a true class were said to be what.

    Args:
        matrix: (C, C) pixels, truth by row, answers by column.
        names: the classes; columns are told by their numbers.
        cell: side of a cell in px.

    Returns:
        (H, W, 3) uint8 RGB. Rows of classes that are not in the truth stay empty.
    """
    size, rise = 12, cell // 3  # of the letters, and how far above a cell's lower border they stand
    told = [f"{i}  {name}" for i, name in enumerate(names)]
    left = max(drawing.text_width(text, size) for text in told) + 2 * size
    picture = drawing.blank((len(names) + 1) * cell, left + len(names) * cell)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    for i, text in enumerate(told):
        bottom = (i + 2) * cell
        drawing.draw_text(picture, text, size // 2, bottom - rise, size)
        drawing.draw_text(picture, str(i), left + i * cell + 6, cell - rise, size)
        for j, share in enumerate(shares[i]):
            x = left + j * cell
            place = picture[bottom - cell + 1 : bottom, x + 1 : x + cell]
            place[:] = (1 - share) * place + share * np.array(_RIGHT if i == j else _WRONG)
            if share >= 0.005:
                drawing.draw_text(picture, f"{100 * share:.0f}", x + 6, bottom - rise, size)
    return picture


def draw_example(
    image1: np.ndarray, image2: np.ndarray, flow: np.ndarray, seg: np.ndarray, label_set: LabelSet
) -> np.ndarray:
    """One example as a picture.

    Args:
        image1: (H, W, 3) RGB 0..255.
        image2: (H, W, 3).
        flow: (H, W, 3) (u, v, valid).
        seg: (H, W) train ids.
        label_set: their classes.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    frame1, frame2 = (np.uint8(np.clip(np.rint(x), 0, 255)) for x in (image1, image2))
    known = flow[..., 2] > 0
    colours = flow_to_color(flow[..., :2], valid=known)
    over = np.where(known[..., None], 0.35 * frame1 + 0.65 * colours, frame1).astype(np.uint8)
    warped = backward_warp(np.float32(image2)[None], np.float32(flow[None, ..., :2]))
    warped = np.uint8(np.clip(keras.ops.convert_to_numpy(warped)[0], 0, 255))
    speed = np.hypot(flow[..., 0], flow[..., 1])[known]
    told = f"mean {speed.mean():.1f} px" if known.any() else "none"
    return drawing.panel(
        [
            ("First frame", frame1),
            ("Second frame", frame2),
            (
                f"Labels ({np.mean(seg != IGNORE_LABEL):.0%})",
                drawing.overlay_labels(frame1, seg, label_set),
            ),
            (f"Flow ({known.mean():.0%}; {told})", over),
            ("Second frame warped back", np.where(known[..., None], warped, 0)),
        ],
        2,
    )

"""Draws predictions and scores as panels for the report, TensorBoard and the demo."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from flowseg.data.flow_io import flow_to_color
from flowseg.data.labels import IGNORE_LABEL, LabelSet
from flowseg.media import drawing
from flowseg.media.drawing import color_labels, flow_error_map, panel
from flowseg.network.flow_ops import backward_warp

# Speed drawn in full colour without ground truth, as a share of the image width (50 px on KITTI).
_UNKNOWN_SPEED = 0.04
# Colours of a confusion matrix.
_RIGHT, _WRONG = (80, 160, 90), (210, 80, 70)


def draw_predictions(
    frame: dict[str, Any], seg: np.ndarray | None, flow: np.ndarray | None, label_set: LabelSet
) -> np.ndarray:
    """Draw a frame, its ground truth, its predictions and their errors in one image.

    Args:
        frame: decoded frame of `decoding.evaluation_data`, in NumPy.
        seg: (H, W) predicted train ids; None to omit.
        flow: (H, W, 2) predicted flow in px; None to omit.
        label_set: the classes.

    Returns:
        (H', W', 3) uint8 RGB, without panels for missing ground truth and errors against it. The
        flow of a frame without a second frame is omitted: the network's input was the same frame
        twice, so the flow is noise.
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
        # Without ground truth, predicted classes come last, so that both flows are side by side.
        group = titled if labelled.any() else errors
        group.append(("Segmentation, predicted", color_labels(seg, label_set)))
    if flow is not None and frame["has_image2"]:
        truth, known = frame["flow"], frame["flow"][..., 2] > 0
        # Both flows use the scale of the ground truth, so that their colours are comparable.
        # Without it, the scale is fixed, because that of the prediction changes during training.
        max_speed = _UNKNOWN_SPEED * flow.shape[1]
        if known.any():
            max_speed = float(np.percentile(np.hypot(*truth[known][:, :2].T), 99))
        max_speed = max(1.0, max_speed)
        if known.any():
            colours = flow_to_color(truth[..., :2], max_speed, known)
            titled.append((f"Flow, true (full colour {max_speed:.0f} px)", colours))
            title = "Flow errors (blue under 3 px, yellow to red over)"
            errors.append((title, flow_error_map(flow, truth)))
        title = "Flow, predicted" + f" (full colour {max_speed:.0f} px)" * (not known.any())
        titled.append((title, flow_to_color(flow, max_speed)))
    return panel(titled + errors, 2)


def draw_confusion(matrix: np.ndarray, names: Sequence[str], cell: int = 30) -> np.ndarray:
    """Draw a confusion matrix; each row shows how a true class was predicted, in percent.

    Args:
        matrix: (C, C) pixels, ground truth by row, prediction by column.
        names: class names; columns are labelled by their train ids.
        cell: side of a cell in px.

    Returns:
        (H, W, 3) uint8 RGB. Rows of classes that are not in the ground truth remain empty.
    """
    # Height of the letters, and of their baseline above the lower border of a cell.
    size, rise = 12, cell // 3
    labels = [f"{i}  {name}" for i, name in enumerate(names)]
    left = max(drawing.text_width(text, size) for text in labels) + 2 * size
    image = drawing.blank((len(names) + 1) * cell, left + len(names) * cell)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    for i, text in enumerate(labels):
        bottom = (i + 2) * cell
        drawing.draw_text(image, text, size // 2, bottom - rise, size)
        drawing.draw_text(image, str(i), left + i * cell + 6, cell - rise, size)
        for j, share in enumerate(shares[i]):
            x = left + j * cell
            area = image[bottom - cell + 1 : bottom, x + 1 : x + cell]
            area[:] = (1 - share) * area + share * np.array(_RIGHT if i == j else _WRONG)
            if share >= 0.005:
                drawing.draw_text(image, f"{100 * share:.0f}", x + 6, bottom - rise, size)
    return image


def draw_clip(
    images: np.ndarray,
    flow: np.ndarray,
    backward_flow: np.ndarray,
    seg: np.ndarray,
    label_set: LabelSet,
) -> np.ndarray:
    """Draw a clip, one row per frame.

    Args:
        images: (k, H, W, 3) RGB 0..255.
        flow: (k - 1, H, W, 3) (u, v, valid), to the next frame.
        backward_flow: (k - 1, H, W, 3), from the next frame at its pixels.
        seg: (k, H, W) train ids.
        label_set: the classes.

    Returns:
        (H', W', 3) uint8 RGB. Each row shows the frame with its labels, with the flow to the next
        frame, and with the flow to the previous one.
    """
    titled = []
    for i, image in enumerate(images):
        frame = np.uint8(np.clip(np.rint(image), 0, 255))
        labelled = np.mean(seg[i] != IGNORE_LABEL)
        overlay = drawing.overlay_labels(frame, seg[i], label_set)
        titled.append((f"Frame {i + 1}, labels ({labelled:.0%})", overlay))
        for name, flows, j in (("next", flow, i), ("previous", backward_flow, i - 1)):
            exists = 0 <= j < len(flows)
            vectors = flows[j] if exists else np.zeros_like(flow[0])
            overlay, text = _overlay_flow(frame, vectors)
            titled.append((f"Flow to the {name} frame ({text if exists else 'none'})", overlay))
    return drawing.panel(titled, 3)


def _overlay_flow(frame, flow):
    """Return a frame with its known flow drawn over it, and a summary of the flow."""
    known = flow[..., 2] > 0
    colours = flow_to_color(flow[..., :2], valid=known)
    overlay = np.where(known[..., None], 0.35 * frame + 0.65 * colours, frame).astype(np.uint8)
    speed = np.hypot(flow[..., 0], flow[..., 1])[known]
    speed_text = f"mean {speed.mean():.1f} px" if known.any() else "none"
    return overlay, f"{known.mean():.0%}; {speed_text}"


def draw_example(
    image1: np.ndarray, image2: np.ndarray, flow: np.ndarray, seg: np.ndarray, label_set: LabelSet
) -> np.ndarray:
    """Draw one example.

    Args:
        image1: (H, W, 3) RGB 0..255.
        image2: (H, W, 3).
        flow: (H, W, 3) (u, v, valid).
        seg: (H, W) train ids.
        label_set: the classes.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    frame1, frame2 = (np.uint8(np.clip(np.rint(x), 0, 255)) for x in (image1, image2))
    known = flow[..., 2] > 0
    overlay, flow_text = _overlay_flow(frame1, flow)
    warped = backward_warp(np.float32(image2)[None], np.float32(flow[None, ..., :2]))
    warped = np.uint8(np.clip(keras.ops.convert_to_numpy(warped)[0], 0, 255))
    return drawing.panel(
        [
            ("First frame", frame1),
            ("Second frame", frame2),
            (
                f"Labels ({np.mean(seg != IGNORE_LABEL):.0%})",
                drawing.overlay_labels(frame1, seg, label_set),
            ),
            (f"Flow ({flow_text})", overlay),
            ("Second frame warped back", np.where(known[..., None], warped, 0)),
        ],
        2,
    )

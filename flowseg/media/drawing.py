"""Draws labels, flow errors, legends and titled panels as RGB images.

Everything that visualises predictions (TensorBoard images of `train`, `show`, `predict`,
`visualize`) uses this module, so that a colour has the same meaning everywhere.
Images are (H, W, 3) uint8 RGB; flow colours are in :mod:`flowseg.data.flow_io`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from flowseg import files
from flowseg.data.flow_io import flow_to_color
from flowseg.data.labels import LabelSet, colour_table

BACKGROUND = (24, 26, 31)
TEXT = (226, 228, 232)
_OUTLINE = (110, 114, 122)

# OpenCV's built-in scalable font: anti-aliased, needs no font file.
_FONT = cv2.FontFace("sans")
_LEFT = cv2.PUT_TEXT_ALIGN_LEFT

# KITTI 2015 development kit, `log_colormap.h`: each colour is for errors up to this normalised
# error, where 1 is the outlier threshold (3 px and 5 %); the last colour is for larger ones.
ERROR_EDGES = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
ERROR_COLOURS = (
    (49, 54, 149),
    (69, 117, 180),
    (116, 173, 209),
    (171, 217, 233),
    (224, 243, 248),
    (254, 224, 144),
    (253, 174, 97),
    (244, 109, 67),
    (215, 48, 39),
    (165, 0, 38),
)


def color_labels(train_ids: np.ndarray, label_set: LabelSet) -> np.ndarray:
    """(H, W) train ids -> (H, W, 3) image in the colours of the label set; void is black."""
    return colour_table(label_set)[np.asarray(train_ids, np.uint8)]


def overlay_labels(
    image: np.ndarray, train_ids: np.ndarray, label_set: LabelSet, strength: float = 0.5
) -> np.ndarray:
    """Blend the label colours into the image; void pixels remain unchanged.

    Args:
        image: (H, W, 3) uint8 RGB.
        train_ids: (H, W) train ids; 255 and all other ids without a class are void.
        label_set: the :class:`flowseg.data.labels.LabelSet` of the ids.
        strength: weight of the colours; 0 shows only the image, 1 only the colours.
    """
    image = np.asarray(image, np.uint8)
    colours = color_labels(train_ids, label_set)
    mixed = cv2.addWeighted(image, 1 - strength, colours, strength, 0)
    void = np.asarray(train_ids) >= len(label_set.names)
    return np.where(void[..., None], image, mixed)


def flow_error_map(flow: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """End-point error in the colours of KITTI's evaluation: blue is correct, red is wrong.

    The error is normalised by the outlier threshold, epe / max(3 px, 5 % of the true speed), so
    pale blue turns to yellow where a pixel starts to count in Fl-all. Unknown pixels are black, but
    those next to known pixels take the colour of the largest error among these, so that sparse
    ground truth remains visible in a small image.

    Args:
        flow: (H, W, 2) in pixels; non-finite values count as the largest error.
        truth: (H, W, 3) ground truth (u, v, valid).

    Returns:
        (H, W, 3) uint8 RGB.
    """
    truth = np.asarray(truth, np.float32)
    error = np.linalg.norm(np.asarray(flow, np.float32) - truth[..., :2], axis=-1)
    speed = np.linalg.norm(truth[..., :2], axis=-1)
    known = truth[..., 2] > 0
    # 0 is unknown, 1 to 10 are the colours. NaN sorts after every edge, into the last colour.
    bin_index = np.searchsorted(ERROR_EDGES, error / np.maximum(3, 0.05 * speed), side="right") + 1
    bin_index = np.where(known, bin_index, 0).astype(np.uint8)
    spread_bins = cv2.dilate(bin_index, np.ones((3, 3), np.uint8))
    table = np.array([(0, 0, 0), *ERROR_COLOURS], np.uint8)
    return table[np.where(known, bin_index, spread_bins)]


def color_wheel(size: int, max_magnitude: float) -> np.ndarray:
    """Draw a key to the flow colours: a disc of `size` px, and below it the speed at its rim.

    Each point of the disc has the colour of the flow vector from the centre to this point.

    Args:
        size: diameter in px.
        max_magnitude: speed at the rim in px, as for `flow_to_color`.

    Returns:
        (about 1.3 * size, size, 3) uint8 RGB.
    """
    text_size = int(np.clip(size / 7, 12, 22))
    image = blank(size + round(1.6 * text_size), size)
    radius = size / 2 - 1
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    distance = np.hypot(x, y)
    # Extend the rim's colour outwards for anti-aliasing of the rim.
    shrink = np.minimum(1, 0.999 * radius / np.maximum(distance, 1e-6)) * max_magnitude / radius
    disc = flow_to_color(np.dstack([x * shrink, y * shrink]), max_magnitude)
    cover = np.clip(radius + 0.5 - distance, 0, 1)[..., None]
    image[:size] = np.rint(cover * disc + (1 - cover) * image[:size])
    caption = shorten(f"rim {max_magnitude:.3g} px", text_size, size)
    left = (size - text_width(caption, text_size)) // 2
    draw_text(image, caption, left, size + round(1.3 * text_size), text_size)
    return image


def legend(
    label_set: LabelSet,
    width: int,
    present_ids: Iterable[int] | None = None,
    text_size: int = 14,
    max_height: int | None = None,
) -> np.ndarray:
    """Draw colour swatches with class names, in columns of equal width, filled top to bottom.

    Args:
        label_set: the :class:`flowseg.data.labels.LabelSet` to show.
        width: width of the image in px.
        present_ids: the train ids to show, in this order; default: every class.
        text_size: height of the letters, in px.
        max_height: maximum height in px; entries that do not fit become a final "+N more".

    Returns:
        (H, width, 3) uint8 RGB; H depends on the number of rows.
    """
    ids = range(len(label_set.names)) if present_ids is None else present_ids
    entries = [(label_set.names[i], label_set.palette[i]) for i in ids]
    row = legend_row(text_size)
    # The longest name of all classes, so that columns do not move when the shown classes change.
    longest = max(text_width(name, text_size) for name in label_set.names)
    swatch, gap = text_size, round(0.5 * text_size)
    cell = min(width, swatch + longest + 4 * gap)
    columns = max(1, width // cell)
    fits = len(entries) if max_height is None else columns * max(1, max_height // row)
    if len(entries) > fits:
        entries[fits - 1 :] = [(f"+{len(entries) - fits + 1} more", None)]
    rows = max(1, -(-len(entries) // columns))
    image = blank(rows * row, width)
    for index, (name, colour) in enumerate(entries):
        top, left = index % rows * row, index // rows * cell
        corner = (left, top + (row - swatch) // 2)
        if colour is not None:
            # The outline separates dark colours from the dark background.
            box = (*corner, swatch, swatch)
            cv2.rectangle(image, box, colour, cv2.FILLED)
            cv2.rectangle(image, box, _OUTLINE, 1)
        name = shorten(name, text_size, cell - swatch - gap)
        baseline = top + row // 2 + round(0.36 * text_size)
        draw_text(image, name, left + swatch + gap, baseline, text_size)
    return image


def legend_row(text_size: int) -> int:
    """Height in px of one row of a legend."""
    return round(1.7 * text_size)


def panel(titled: Sequence[tuple[str, np.ndarray]], columns: int) -> np.ndarray:
    """Tile images, each below its title, on a dark background.

    Args:
        titled: list of (title, (H, W, 3) uint8 RGB). Sizes may differ: a cell has the largest width
            in its column and the largest height in its row, with the image centred.
        columns: number of images per row.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: there is no image.
    """
    if not titled:
        raise ValueError("a panel needs at least one image")
    columns = min(columns, len(titled))
    rows = [titled[i : i + columns] for i in range(0, len(titled), columns)]
    widths = [max(row[c][1].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(image.shape[0] for _, image in row) for row in rows]
    text_size = panel_text_size(sum(widths))
    gap, strip = round(0.6 * text_size), round(1.9 * text_size)
    canvas = blank(sum(heights) + len(rows) * strip + gap, sum(widths) + (columns + 1) * gap)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = gap
        for (title, image), width in zip(row, widths, strict=False):
            title = shorten(title, text_size, width)
            draw_text(canvas, title, left, top + round(1.3 * text_size), text_size, 500)
            h, w = image.shape[:2]
            y, x = top + strip + (height - h) // 2, left + (width - w) // 2
            canvas[y : y + h, x : x + w] = image
            left += width + gap
        top += strip + height
    return canvas


def panel_text_size(width: int) -> int:
    """Height in px of the letters for a panel whose images have a total width of `width` px."""
    return int(np.clip(width / 64, 12, 22))


def blank(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB of the dark background."""
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def draw_text(
    image: np.ndarray, text: str, left: int, baseline: int, size: int, weight: int = 400
) -> None:
    """Draw `text` into `image` in place; `size` is in px, `weight` is 400 (plain) to 700 (bold)."""
    cv2.putText(image, text, (left, baseline), TEXT, _FONT, size, weight, _LEFT)


def text_width(text: str, size: int, weight: int = 400) -> int:
    """Width in px that `draw_text` needs."""
    return cv2.getTextSize((0, 0), text, (0, 0), _FONT, size, weight, _LEFT)[2]


def shorten(text: str, size: int, width: int) -> str:
    """`text`, truncated with trailing dots if it is wider than `width` px."""
    cut = text
    while cut and text_width(cut if cut == text else cut + "..", size, 500) > width:
        cut = cut[:-1]
    return text if cut == text else cut + ".."


def shrink(image: np.ndarray, width: int) -> np.ndarray:
    """Shrink (H, W, 3) uint8 to at most `width` px, keeping the aspect ratio."""
    if image.shape[1] <= width:
        return image
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def shrink_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink (H, W, 3) flow (u, v, valid) for display; its vectors are not scaled.

    Sparse flow is spread to neighbouring pixels, since single points would not be visible.

    Args:
        flow: unknown vectors must be 0.
        size: (width, height) in px.
    """
    # The mean of (u, v) divided by the mean of valid is the mean over known pixels.
    small = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
    small = np.where(small[..., 2:] > 0, small, cv2.blur(small, (3, 3)))
    weight = small[..., 2:]
    known = weight > 0
    return np.dstack([small[..., :2] / np.where(known, weight, 1), known]).astype(np.float32)


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) RGB or (H, W) grey uint8 as a PNG, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    image = np.asarray(image)
    blue_green_red = image[..., ::-1] if image.ndim == 3 else image
    done, data = cv2.imencode(".png", np.ascontiguousarray(blue_green_red))
    if not done:
        raise OSError(f"{path}: OpenCV could not encode this PNG")
    files.write(path, data.tobytes())

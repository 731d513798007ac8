"""Drawing: labels, flow errors, legends and titled panels as RGB pictures.

Everything that shows an answer to an eye (TensorBoard pictures of `train`, `show`,
`predict`, `visualize`) draws through this room, so that a colour means one thing everywhere.
Pictures are (H, W, 3) uint8 RGB; flow colours themselves live in :mod:`flowseg.data.flow_io`.
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

# OpenCV's built-in scalable font: anti-aliased, no font file needed on the machine.
_FONT = cv2.FontFace("sans")
_LEFT = cv2.PUT_TEXT_ALIGN_LEFT

# KITTI 2015 development kit, `log_colormap.h`: each colour holds up to this normalised error,
# where 1 is the border of an outlier (3 px and 5 %); the last colour holds the rest.
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
    """(H, W) train ids -> (H, W, 3) picture in the set's colours; void is black."""
    return colour_table(label_set)[np.asarray(train_ids, np.uint8)]


def overlay_labels(
    image: np.ndarray, train_ids: np.ndarray, label_set: LabelSet, strength: float = 0.5
) -> np.ndarray:
    """The image tinted by its labels; void leaves the image as it is.

    Args:
        image: (H, W, 3) uint8 RGB.
        train_ids: (H, W) train ids; 255 and every id that is no class is void.
        label_set: the :class:`flowseg.data.labels.LabelSet` of the ids.
        strength: 0 shows the image alone, 1 the colours alone.
    """
    image = np.asarray(image, np.uint8)
    colours = color_labels(train_ids, label_set)
    mixed = cv2.addWeighted(image, 1 - strength, colours, strength, 0)
    void = np.asarray(train_ids) >= len(label_set.names)
    return np.where(void[..., None], image, mixed)


def flow_error_map(flow: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """End-point error in the colours of KITTI's evaluation: blue is right, red is wrong.

    The error is counted in outlier borders, epe / max(3 px, 5 % of the true speed), so pale blue
    turns to yellow where a pixel starts to count in Fl-all. Unknown pixels are black, but one
    beside known pixels borrows the worst of them: sparse truth stays visible in a small picture.

    Args:
        flow: (H, W, 2) in pixels; what is not finite counts as the worst error.
        truth: (H, W, 3) true (u, v, valid).

    Returns:
        (H, W, 3) uint8 RGB.
    """
    truth = np.asarray(truth, np.float32)
    error = np.linalg.norm(np.asarray(flow, np.float32) - truth[..., :2], axis=-1)
    speed = np.linalg.norm(truth[..., :2], axis=-1)
    known = truth[..., 2] > 0
    # 0 is unknown, 1 to 10 the colours. NaN sorts behind every edge, into the last colour.
    place = np.searchsorted(ERROR_EDGES, error / np.maximum(3, 0.05 * speed), side="right") + 1
    place = np.where(known, place, 0).astype(np.uint8)
    spread = cv2.dilate(place, np.ones((3, 3), np.uint8))
    table = np.array([(0, 0, 0), *ERROR_COLOURS], np.uint8)
    return table[np.where(known, place, spread)]


def color_wheel(size: int, max_magnitude: float) -> np.ndarray:
    """The key to flow colours: a disc of `size` px, and beneath it the speed at its rim.

    A point of the disc has the colour of the flow that points there from the centre.

    Args:
        size: diameter in px.
        max_magnitude: speed at the rim in px, as given to `flow_to_color`.

    Returns:
        (about 1.3 * size, size, 3) uint8 RGB.
    """
    text_size = int(np.clip(size / 7, 12, 22))
    picture = blank(size + round(1.6 * text_size), size)
    radius = size / 2 - 1
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    distance = np.hypot(x, y)
    # Beyond the rim the rim's colour goes on, for its soft edge.
    shrink = np.minimum(1, 0.999 * radius / np.maximum(distance, 1e-6)) * max_magnitude / radius
    disc = flow_to_color(np.dstack([x * shrink, y * shrink]), max_magnitude)
    cover = np.clip(radius + 0.5 - distance, 0, 1)[..., None]
    picture[:size] = np.rint(cover * disc + (1 - cover) * picture[:size])
    caption = shorten(f"rim {max_magnitude:.3g} px", text_size, size)
    left = (size - text_width(caption, text_size)) // 2
    draw_text(picture, caption, left, size + round(1.3 * text_size), text_size)
    return picture


def legend(
    label_set: LabelSet,
    width: int,
    present_ids: Iterable[int] | None = None,
    text_size: int = 14,
    max_height: int | None = None,
) -> np.ndarray:
    """Swatches with class names, in even columns that are read downwards.

    Args:
        label_set: the :class:`flowseg.data.labels.LabelSet` to show.
        width: of the picture, in px.
        present_ids: the train ids to show, in their order; default: every class.
        text_size: height of the letters, in px.
        max_height: of the picture, in px; what does not fit is counted in a last "+N more".

    Returns:
        (H, width, 3) uint8 RGB; as high as its rows.
    """
    ids = range(len(label_set.names)) if present_ids is None else present_ids
    entries = [(label_set.names[i], label_set.palette[i]) for i in ids]
    row = legend_row(text_size)
    # The whole set's longest name, so that columns stand still when the shown classes change.
    longest = max(text_width(name, text_size) for name in label_set.names)
    swatch, gap = text_size, round(0.5 * text_size)
    cell = min(width, swatch + longest + 4 * gap)
    columns = max(1, width // cell)
    fits = len(entries) if max_height is None else columns * max(1, max_height // row)
    if len(entries) > fits:
        entries[fits - 1 :] = [(f"+{len(entries) - fits + 1} more", None)]
    rows = max(1, -(-len(entries) // columns))
    picture = blank(rows * row, width)
    for place, (name, colour) in enumerate(entries):
        top, left = place % rows * row, place // rows * cell
        corner = (left, top + (row - swatch) // 2)
        if colour is not None:
            # The outline keeps dark colours apart from the dark background.
            box = (*corner, swatch, swatch)
            cv2.rectangle(picture, box, colour, cv2.FILLED)
            cv2.rectangle(picture, box, _OUTLINE, 1)
        name = shorten(name, text_size, cell - swatch - gap)
        baseline = top + row // 2 + round(0.36 * text_size)
        draw_text(picture, name, left + swatch + gap, baseline, text_size)
    return picture


def legend_row(text_size: int) -> int:
    """Height in px of one row of a legend."""
    return round(1.7 * text_size)


def panel(titled: Sequence[tuple[str, np.ndarray]], columns: int) -> np.ndarray:
    """Tile pictures, each under its title, on a dark ground.

    Args:
        titled: list of (title, (H, W, 3) uint8 RGB); sizes may differ: a cell is as wide as the
            widest of its column and as high as the highest of its row, pictures centred in it.
        columns: pictures in a row.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: no picture.
    """
    if not titled:
        raise ValueError("a panel needs at least one picture")
    columns = min(columns, len(titled))
    rows = [titled[i : i + columns] for i in range(0, len(titled), columns)]
    widths = [max(row[c][1].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(picture.shape[0] for _, picture in row) for row in rows]
    text_size = panel_text_size(sum(widths))
    gap, strip = round(0.6 * text_size), round(1.9 * text_size)
    canvas = blank(sum(heights) + len(rows) * strip + gap, sum(widths) + (columns + 1) * gap)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = gap
        for (title, picture), width in zip(row, widths, strict=False):
            title = shorten(title, text_size, width)
            draw_text(canvas, title, left, top + round(1.3 * text_size), text_size, 500)
            h, w = picture.shape[:2]
            y, x = top + strip + (height - h) // 2, left + (width - w) // 2
            canvas[y : y + h, x : x + w] = picture
            left += width + gap
        top += strip + height
    return canvas


def panel_text_size(width: int) -> int:
    """Height in px of the letters that suit a panel whose pictures are `width` px wide in all."""
    return int(np.clip(width / 64, 12, 22))


def blank(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB of the dark background."""
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def draw_text(
    picture: np.ndarray, text: str, left: int, baseline: int, size: int, weight: int = 400
) -> None:
    """Write `text` into `picture`, in place; `size` is in px, `weight` 400 plain to 700 bold."""
    cv2.putText(picture, text, (left, baseline), TEXT, _FONT, size, weight, _LEFT)


def text_width(text: str, size: int, weight: int = 400) -> int:
    """Width in px that `draw_text` needs."""
    return cv2.getTextSize((0, 0), text, (0, 0), _FONT, size, weight, _LEFT)[2]


def shorten(text: str, size: int, width: int) -> str:
    """`text`, cut and ended by dots where it is wider than `width` px."""
    cut = text
    while cut and text_width(cut if cut == text else cut + "..", size, 500) > width:
        cut = cut[:-1]
    return text if cut == text else cut + ".."


def shrink(picture: np.ndarray, width: int) -> np.ndarray:
    """(H, W, 3) uint8 at most `width` px wide, its aspect kept."""
    if picture.shape[1] <= width:
        return picture
    size = (width, max(1, round(picture.shape[0] * width / picture.shape[1])))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def shrink_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) flow (u, v, valid) made smaller for a picture; its vectors keep their length.

    Sparse flow is spread over its neighbours, as single points would be lost to the eye.

    Args:
        flow: unknown vectors must be 0.
        size: (width, height) in px.
    """
    # Means of (u, v) over means of valid are means of what is known.
    small = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
    small = np.where(small[..., 2:] > 0, small, cv2.blur(small, (3, 3)))
    share = small[..., 2:]
    known = share > 0
    return np.dstack([small[..., :2] / np.where(known, share, 1), known]).astype(np.float32)


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write (H, W, 3) RGB or (H, W) grey uint8 as a PNG; whole, or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    picture = np.asarray(picture)
    blue_green_red = picture[..., ::-1] if picture.ndim == 3 else picture
    done, data = cv2.imencode(".png", np.ascontiguousarray(blue_green_red))
    if not done:
        raise OSError(f"{path}: OpenCV could not encode this PNG")
    files.write(path, data.tobytes())

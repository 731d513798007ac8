"""Demo page: scores, an animated clip and annotated frames in one self-contained folder."""

import json
from pathlib import Path

import cv2

from flowseg import files
from flowseg.media import frames
from flowseg.scoring import html_page

# Scores shown on the page; metrics.json has all of them.
_SCORES = (
    ("seg/miou", "mIoU", "%"),
    ("seg/iou/road", "road", "% IoU"),
    ("seg/iou/car", "car", "% IoU"),
    ("seg/iou/sky", "sky", "% IoU"),
    ("flow/aepe", "end-point error", "px"),
    ("flow/fl_all", "Fl-all", "%"),
)


def animate(video: str | Path, output: str | Path, width: int = 960) -> None:
    """Re-encode a video as an animated WebP, which every browser plays.

    Raises:
        ValueError: the video cannot be read.
        OSError: the file cannot be written.
    """
    images, fps, _ = frames.open_frames(video)
    small = []
    for frame in images:
        image = frame.image
        height = round(image.shape[0] * width / image.shape[1])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        small.append(image[..., ::-1].copy())
    animation = cv2.Animation()
    animation.frames, animation.durations = small, [round(1000 / (fps or 10))] * len(small)
    with files.atomic(output) as partial:
        if not cv2.imwriteanimation(str(partial), animation, [cv2.IMWRITE_WEBP_QUALITY, 80]):
            raise OSError(0, "cannot write the animation", str(output))


def write_page(folder: Path, title: str, summary: str, run: str) -> None:
    """Write `folder`/index.html, a page about the files that the demo has written there.

    Args:
        folder: Path that contains metrics.json, pictures/ and optionally video.webp and roads.png.
        title: title of the page.
        summary: text below the title: what the pictures show, and which frames are scored.
        run: name of the run folder, in `folder`.

    Raises:
        OSError: a file cannot be read or written.
    """
    scores = json.loads((folder / "metrics.json").read_text())
    html_page.write_html(
        folder / "index.html",
        Path(__file__).with_suffix(".html.jinja"),
        title=title,
        summary=summary,
        run=run,
        scores=[
            (name, f"{scores[key]:.1f} {unit}")
            for key, name, unit in _SCORES
            if scores.get(key) is not None
        ],
        has_video=(folder / "video.webp").is_file(),
        has_roads=(folder / "roads.png").is_file(),
        pictures=sorted(path.stem for path in (folder / "pictures").glob("*.png")),
    )

"""The demo's page: scores, a moving picture and drawn frames, in one folder that can be sent on."""

import html
import json

import cv2

from flowseg import files
from flowseg.media import frames
from flowseg.scoring import html_page

# What a page shows first; the rest stands in metrics.json.
_SCORES = (
    ("seg/miou", "mIoU", "%"),
    ("seg/iou/road", "road", "% IoU"),
    ("seg/iou/car", "car", "% IoU"),
    ("seg/iou/sky", "sky", "% IoU"),
    ("flow/aepe", "end-point error", "px"),
    ("flow/fl_all", "Fl-all", "%"),
)
# Of the real pair.
_CREDIT = "KITTI 2015, frame 000003_10 (Geiger, Lenz, Stiller, Urtasun, Menze; CC BY-NC-SA 3.0)"


def animate(video, output, width=960):
    """Write a video again as an animated WebP, which every browser plays.

    Raises:
        ValueError: the video cannot be read.
        OSError: the file cannot be written.
    """
    images, fps, _ = frames.open_frames(video)
    small = []
    for _, image in images:
        height = round(image.shape[0] * width / image.shape[1])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        small.append(image[..., ::-1].copy())
    animation = cv2.Animation()
    animation.frames, animation.durations = small, [round(1000 / (fps or 10))] * len(small)
    with files.whole(output) as partial:
        if not cv2.imwriteanimation(str(partial), animation, [cv2.IMWRITE_WEBP_QUALITY, 80]):
            raise OSError(0, "cannot write the animation", str(output))


def write_page(folder, title, told):
    """Write `folder`/index.html over what the demo left there.

    Args:
        folder: Path that holds metrics.json, pictures/ and perhaps video.webp and roads.png.
        title: of the page.
        told: a sentence below it: what was trained on what.

    Raises:
        OSError: a file cannot be read or written.
    """
    scores = json.loads((folder / "metrics.json").read_text())
    rows = "".join(
        f"<tr><th>{name}</th><td>{scores[key]:.1f} {unit}</td></tr>"
        for key, name, unit in _SCORES
        if scores.get(key) is not None
    )
    parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape(told)}</p><table>{rows}</table>"]
    if (folder / "video.webp").is_file():
        parts.append('<h2>A drive</h2><img src="video.webp" alt="frames, classes and motion">')
    if (folder / "roads.png").is_file():
        parts.append("<h2>A network trained for real roads, on a real pair</h2>")
        parts.append('<img src="roads.png" alt="frame, classes and motion">')
        parts.append(f"<p>{_CREDIT}</p>")
    parts.append("<h2>Frames, truth, answers and errors</h2>")
    parts += [
        f'<img src="pictures/{path.name}" alt="{path.stem}" loading="lazy">'
        for path in sorted((folder / "pictures").glob("*.png"))
    ]
    parts.append(
        '<p>All scores: <a href="metrics.json">metrics.json</a>. The network, for servers: '
        "<code>served/</code>; for edge devices: <code>flowseg.tflite</code>; for more "
        "training: <code>run/</code>.</p>"
    )
    html_page.write_html(folder / "index.html", html.escape(title), "".join(parts))

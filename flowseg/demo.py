"""Serve a local web page that predicts segmentation and optical flow of frames or a short clip.

python -m flowseg.demo --weights pretrained

serves http://127.0.0.1:7860 (see --port) until Ctrl-C, to this machine only. The page uses Gradio
(pip install 'flowseg[demo]'); it makes no requests to other hosts. Uploads and results are stored
in a temporary folder, which is removed when the command ends by Ctrl-C or SIGTERM.

Frames larger than full HD are downscaled for the network, and the page says so; only the first
--frames frames of a clip are processed.
"""

import functools
import html
import itertools
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from flowseg.cli import entry
from flowseg.cli import flags as shared_flags
from flowseg.media.pairs import read_pair
from flowseg.media.video import VIDEO_SUFFIXES, open_video
from flowseg.media.video_panels import DEFAULT_FPS, compose, first_max_flow, write_video
from flowseg.scoring.prediction_files import summary, write_predictions

# Limit of the network's input: more takes gigabytes, and minutes without a GPU.
MAX_PIXELS = 1920 * 1080


def predict_pair(
    run: Any,
    path1: str,
    path2: str,
    folder: str | Path,
    overlay: float = 0.5,
    arrows: float = 0.0,
    scale: float = 1.0,
) -> tuple[np.ndarray, str, list[str]]:
    """Predict a frame pair, draw the predictions and write them as files.

    Args:
        run: loaded run, with `predict(image1, image2, scale)` and `label_set`.
        path1: file of the earlier frame.
        path2: file of the later frame.
        folder: folder for the files that `flowseg.predict` writes.
        overlay: opacity of the class colours over the frame, 0..1.
        arrows: px between flow arrows; 0 draws none.
        scale: factor by which frames are resized for the network.

    Returns:
        ((H, W, 3) uint8 image of `video_panels.compose`, one-line summary, list of files).

    Raises:
        ValueError: a frame is missing or unreadable, or the frames differ in size.
    """
    if not path1 or not path2:
        raise ValueError("upload two frames: the earlier one and the later one")
    image1, image2 = read_pair(path1, path2)
    scale, note = _limit_scale(image1, scale)
    seg, flow = run.predict(image1, image2, scale=scale)
    write_predictions(folder, seg, flow, run.label_set)
    predictions = {"": (seg, flow, run.label_set)}
    style = {"overlay": overlay, "arrows": int(arrows)}
    panels = compose(Path(path1).name, image1, predictions, first_max_flow(flow), **style)
    files = [str(path) for path in sorted(Path(folder).iterdir())]
    return panels, summary(seg, flow, run.label_set) + note, files


def predict_clip(
    run: Any,
    path: str | Path,
    output: str | Path,
    overlay: float = 0.5,
    arrows: float = 0.0,
    scale: float = 1.0,
    max_frames: int = 300,
    track: Callable[[Iterator, int | None], Iterator] | None = None,
) -> str:
    """Predict a clip and draw the predictions as a video.

    Args:
        run: loaded run, as for `video_panels.write_video`.
        path: video file.
        output: FILE.webm, which browsers can play.
        overlay: opacity of the class colours over the frame, 0..1.
        arrows: px between flow arrows; 0 draws none.
        scale: factor by which frames are resized for the network.
        max_frames: maximum number of frames for which flow is predicted.
        track: function of (frames, number of frames or None) -> the frames, with a progress bar.

    Returns:
        One-line summary.

    Raises:
        ValueError: the clip is missing, unreadable, or has fewer than two frames.
    """
    if not path:
        raise ValueError("upload a clip")
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such video file")
    frames, fps, count = open_video(path)
    first = next(frames)
    scale, note = _limit_scale(first.image, scale)
    # One more: the last frame only serves as the second frame of the last pair.
    limited = itertools.islice(itertools.chain([first], frames), max_frames + 1)
    if track:
        limited = track(limited, count and min(count, max_frames + 1))
    style = {"overlay": overlay, "arrows": int(arrows)}
    written = write_video({"": run}, limited, output, fps or DEFAULT_FPS, None, scale, **style)
    if next(frames, None):
        note += f"; only the beginning of the clip: --frames {max_frames} is the limit"
    elif count and written < count - 1:
        note += f"; the clip's header lists {count} frames, of which {written + 1} could be read"
    return f"{written} frames, {float(fps or DEFAULT_FPS):g} per second{note}"


def _limit_scale(image, scale):
    """Return `scale`, reduced if the input exceeds `MAX_PIXELS`, and a note if it was reduced."""
    height, width = image.shape[:2]
    limit = math.sqrt(MAX_PIXELS / (height * width))
    if scale <= limit:
        return scale, ""
    return limit, f"; resized to {round(width * limit)}x{round(height * limit)} px for the network"


def error_text(error: Exception, args: Iterable) -> str:
    """Return an expected error's message for the page, without the temporary folders of uploads.

    Args:
        error: one of `entry.expected_errors`.
        args: arguments of the request; strings among them are paths of uploads.
    """
    text = entry.message(error)
    for path in args:
        if isinstance(path, str):
            text = text.replace(path, Path(path).name)
    return text


def _gradio(folder):
    """Import Gradio, set up to store its files in `folder` and to make no requests elsewhere."""
    os.environ.update(
        GRADIO_TEMP_DIR=str(folder), GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1"
    )
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the page needs {error.name}: pip install 'flowseg[demo]', in a checkout pip install "
            "-e '.[demo]'"
        ) from error
    return gradio


def page(run: Any, folder: str | Path, scale: float = 1.0, max_frames: int = 300) -> Any:
    """Build the page, a `gradio.Blocks` to launch; see `predict_pair` and `predict_clip`.

    Uploads and results are stored in `folder`.
    """
    gradio = _gradio(folder)

    def report_errors(function):
        """Show expected errors on the page instead of printing a traceback in the terminal."""

        @functools.wraps(function)
        def guarded(*args):
            try:
                return function(*args)
            except entry.expected_errors() as error:
                text = error_text(error, args)
                raise gradio.Error(html.escape(text), print_exception=False) from error

        return guarded

    @report_errors
    def pair(path1, path2, overlay, arrows):
        output = tempfile.mkdtemp(dir=folder)
        return predict_pair(run, path1, path2, output, overlay, arrows, scale)

    @report_errors
    def clip(path, overlay, arrows, progress=gradio.Progress()):  # noqa: B008
        output = Path(tempfile.mkdtemp(dir=folder)) / "answers.webm"

        def track(frames, total):
            # In a generator, because Gradio's iterator fails when it is asked again after its end.
            yield from progress.tqdm(frames, total=total, desc="Predicting", unit="frames")

        text = predict_clip(run, path, output, overlay, arrows, scale, max_frames, track)
        return str(output), text

    # The network processes one request at a time, across all users of the page.
    limits = {"concurrency_limit": 1, "concurrency_id": "network"}
    display = {"show_label": False, "interactive": False}
    with gradio.Blocks(title="FlowSeg", analytics_enabled=False) as blocks:
        gradio.Markdown(
            "# FlowSeg\nSemantic segmentation and optical flow: the class of every pixel and its "
            "motion to the next frame. All data stays on this machine."
        )
        with gradio.Row():
            overlay = gradio.Slider(0, 1, 0.5, label="Opacity of the class colours", step=0.05)
            arrows = gradio.Slider(0, 80, 0, label="Px between flow arrows (0: none)", step=10)
        with gradio.Tab("Two frames"):
            kind = {"sources": ["upload"], "height": 240}
            with gradio.Row():
                image1 = gradio.Image(label="Frame", **kind)
                image2 = gradio.Image(label="The next frame", **kind)
            for image in (image1, image2):
                # Otherwise Gradio opens the file and reports a bad one in developers' terms.
                image.preprocess = lambda upload: upload and upload.path
            button = gradio.Button("Predict", variant="primary")
            # The image contains titles. Gradio's default buttons include one that publishes it.
            panels = gradio.Image(format="png", buttons=["download", "fullscreen"], **display)
            text = gradio.Textbox(label="Summary", interactive=False)
            written = gradio.Files(label="Output files", interactive=False)
            inputs, outputs = [image1, image2, overlay, arrows], [panels, text, written]
            button.click(pair, inputs, outputs, show_progress_on=panels, **limits)
        with gradio.Tab("A clip"):
            # Not gradio.Video: it reports an error for formats that FFmpeg reads but browsers do
            # not. Suffixes, because the MIME types that count as video differ between systems.
            video = gradio.File(label="Clip", file_types=list(VIDEO_SUFFIXES), height=120)
            button = gradio.Button("Predict", variant="primary")
            player = gradio.Video(autoplay=True, loop=True, buttons=["download"], **display)
            text = gradio.Textbox(label="Summary", interactive=False)
            inputs = [video, overlay, arrows]
            button.click(clip, inputs, [player, text], show_progress_on=player, **limits)
    return blocks


def serve(
    run: Any, folder: str | Path, port: int, scale: float = 1.0, max_frames: int = 300
) -> Any:
    """Serve the page at http://127.0.0.1:`port`; returns its `gradio.Blocks`. See `page`.

    Raises:
        ValueError: the port is taken.
    """
    theme = _gradio(folder).themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    blocks = page(run, folder, scale, max_frames)
    # Gradio requests its own page to see whether it is up; that must not go through a proxy.
    os.environ.update(NO_PROXY="*", no_proxy="*")
    try:
        blocks.launch(
            server_name="127.0.0.1",
            server_port=port,
            max_file_size="500mb",
            footer_links=[],
            share=False,
            theme=theme,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise ValueError(f"port {port} is not free ({error}); choose another: --port") from error
    return blocks


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_integer("port", 7860, "Port of the page: http://127.0.0.1:PORT.", 1, 65535)
    flags.DEFINE_integer("frames", 300, "Maximum number of frames processed per clip.", 1)


def main():
    """Load the run and serve the page."""
    args = flags.FLAGS
    # SIGTERM, which service managers send, stops the command like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="flowseg-demo-") as folder:
        # Before the network is loaded, so that a missing package is reported at once.
        _gradio(folder)
        from flowseg.runs import load_run

        run = load_run(args.run_dir, args.weights)
        blocks = serve(run, folder, args.port, args.input_scale, args.frames)
        print(f"http://127.0.0.1:{args.port} serves the page; Ctrl-C stops it", flush=True)
        blocks.block_thread()
    sys.stdout.flush()
    # With a prediction still running in Gradio's thread, a normal exit would end in an abort.
    os._exit(0)


def entry_point():
    """Entry point of `flowseg-demo`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()

"""A local web page: drop two frames, or a short clip, and see what is where and where it goes.

python -m flowseg.demo --weights pretrained

serves http://127.0.0.1:7860 (see --port) until Ctrl-C, to this machine alone. The page is Gradio's
(pip install 'flowseg[demo]'); it fetches nothing from elsewhere and sends nothing there. What was
dropped and answered lies in a temporary folder, which goes when the command ends, by Ctrl-C or by
SIGTERM.

Frames of more than a full-HD picture are shrunk for the network, and the page says so; of a clip
the first --frames are answered.
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
from flowseg.media.frames import VIDEO_SUFFIXES, open_frames
from flowseg.media.pairs import read_pair
from flowseg.media.video_panels import DEFAULT_FPS, compose, first_max_flow, write_video
from flowseg.scoring.prediction_files import summary, write_answers

# Of what the network is handed: more takes gigabytes, and minutes without a GPU.
MAX_PIXELS = 1920 * 1080


def answer_pair(
    run: Any,
    path1: str,
    path2: str,
    folder: str | Path,
    overlay: float = 0.5,
    arrows: float = 0.0,
    scale: float = 1.0,
) -> tuple[np.ndarray, str, list[str]]:
    """Two frames' answers.

    Args:
        run: loaded run, with `predict(image1, image2, scale)` and `label_set`.
        path1: the earlier frame's file.
        path2: the later frame's.
        folder: where `predict`'s files are written.
        overlay: strength of the class colours over the frame, 0..1.
        arrows: px between arrows; 0: none.
        scale: resizes what the network sees.

    Returns:
        ((H, W, 3) uint8 picture of `video_panels.compose`, one line about it, list of files).

    Raises:
        ValueError: a frame is missing or cannot be read, or they differ in size.
    """
    if not path1 or not path2:
        raise ValueError("drop two frames: an earlier one and the one after it")
    image1, image2 = read_pair(path1, path2)
    scale, told = _fitting(image1, scale)
    seg, flow = run.predict(image1, image2, scale=scale)
    write_answers(folder, seg, flow, run.label_set)
    answers = {"": (seg, flow, run.label_set)}
    look = {"overlay": overlay, "arrows": int(arrows)}
    picture = compose(Path(path1).name, image1, answers, first_max_flow(flow), **look)
    files = [str(path) for path in sorted(Path(folder).iterdir())]
    return picture, summary(seg, flow, run.label_set) + told, files


def answer_clip(
    run: Any,
    path: str | Path,
    output: str | Path,
    overlay: float = 0.5,
    arrows: float = 0.0,
    scale: float = 1.0,
    most: int = 300,
    track: Callable[[Iterator, int | None], Iterator] | None = None,
) -> str:
    """A clip's answers as a video.

    Args:
        run: loaded run, as `video_panels.write_video` wants it.
        path: video file.
        output: FILE.webm, which browsers show.
        overlay: strength of the class colours over the frame, 0..1.
        arrows: px between arrows; 0: none.
        scale: resizes what the network sees.
        most: of so many frames, at most, motion is found.
        track: called with an iterator of frames and their number; an iterator of the same. For a
            progress bar.

    Returns:
        One line about it.

    Raises:
        ValueError: no clip, or one that cannot be read, or of fewer than two frames.
    """
    if not path:
        raise ValueError("drop a clip")
    frames, fps, count = open_frames(path)
    first = next(frames)
    scale, told = _fitting(first[1], scale)
    # One more: the last frame is only looked at for the motion of the one before.
    shown = itertools.islice(itertools.chain([first], frames), most + 1)
    if track:
        shown = track(shown, count and min(count, most + 1))
    look = {"overlay": overlay, "arrows": int(arrows)}
    written = write_video({"": run}, shown, output, fps or DEFAULT_FPS, None, scale, **look)
    if next(frames, None):
        told += f"; only the beginning of the clip: --frames {most} is the limit"
    elif count and written < count - 1:
        told += f"; the clip announces {count} frames, of which {written + 1} could be read"
    return f"{written} frames, {fps or DEFAULT_FPS:g} a second{told}"


def _fitting(image, scale):
    """The scale at which the network gets at most `MAX_PIXELS`, and a word if it is another."""
    height, width = image.shape[:2]
    most = math.sqrt(MAX_PIXELS / (height * width))
    if scale <= most:
        return scale, ""
    return most, f"; shrunk to {round(width * most)}x{round(height * most)} px for the network"


def error_text(error: Exception, args: Iterable) -> str:
    """What an expected error says at the page, where the folders of uploads say nothing.

    Args:
        error: one of `entry.expected_errors`.
        args: what was asked with; the strings among it are paths of uploads.
    """
    text = entry.message(error)
    for path in args:
        if isinstance(path, str):
            text = text.replace(path, Path(path).name)
    return text


def _gradio(folder):
    """Gradio, told before its import to keep its files in `folder` and to ask nobody elsewhere."""
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


def page(run: Any, folder: str | Path, scale: float = 1.0, most: int = 300) -> Any:
    """The page, a `gradio.Blocks` to launch; see `answer_pair` and `answer_clip`.

    What is dropped and answered is left in `folder`.
    """
    gradio = _gradio(folder)

    def told(function):
        """Mistakes of the person at the page are told there, without a traceback here."""

        @functools.wraps(function)
        def guarded(*args):
            try:
                return function(*args)
            except entry.expected_errors() as error:
                text = error_text(error, args)
                raise gradio.Error(html.escape(text), print_exception=False) from error

        return guarded

    @told
    def pair(path1, path2, overlay, arrows):
        own = tempfile.mkdtemp(dir=folder)
        return answer_pair(run, path1, path2, own, overlay, arrows, scale)

    @told
    def clip(path, overlay, arrows, progress=gradio.Progress()):  # noqa: B008
        output = Path(tempfile.mkdtemp(dir=folder)) / "answers.webm"

        def track(frames, total):
            return progress.tqdm(frames, total=total, desc="Looking", unit="frames")

        text = answer_clip(run, path, output, overlay, arrows, scale, most, track)
        return str(output), text

    # The network answers one request at a time, whoever asks.
    alone = {"concurrency_limit": 1, "concurrency_id": "network"}
    shown = {"show_label": False, "interactive": False}
    with gradio.Blocks(title="FlowSeg", analytics_enabled=False) as blocks:
        gradio.Markdown(
            "# FlowSeg\nWhat is where, and where it goes: for every pixel its class and its motion "
            "to the next frame. Everything stays on this machine."
        )
        with gradio.Row():
            overlay = gradio.Slider(0, 1, 0.5, label="Strength of the class colours", step=0.05)
            arrows = gradio.Slider(0, 80, 0, label="Px between arrows (0: none)", step=10)
        with gradio.Tab("Two frames"):
            kind = {"sources": ["upload"], "height": 240}
            with gradio.Row():
                image1 = gradio.Image(label="Frame", **kind)
                image2 = gradio.Image(label="The next frame", **kind)
            for image in (image1, image2):
                # Gradio would open the file, and tell of a bad one in a developer's words.
                image.preprocess = lambda upload: upload and upload.path
            ask = gradio.Button("Look", variant="primary")
            # The picture has titles of its own; without these words a button offers to publish it.
            picture = gradio.Image(format="png", buttons=["download", "fullscreen"], **shown)
            text = gradio.Textbox(label="In words", interactive=False)
            written = gradio.Files(label="As files, as predict writes them", interactive=False)
            given, answers = [image1, image2, overlay, arrows], [picture, text, written]
            ask.click(pair, given, answers, show_progress_on=picture, **alone)
        with gradio.Tab("A clip"):
            # Not a video's box: browsers cannot show all that OpenCV reads, and call it an error.
            # By name: what a system's table of types calls a video differs between systems.
            video = gradio.File(label="Clip", file_types=list(VIDEO_SUFFIXES), height=120)
            ask = gradio.Button("Look", variant="primary")
            seen = gradio.Video(autoplay=True, loop=True, buttons=["download"], **shown)
            text = gradio.Textbox(label="In words", interactive=False)
            given = [video, overlay, arrows]
            ask.click(clip, given, [seen, text], show_progress_on=seen, **alone)
    return blocks


def serve(run: Any, folder: str | Path, port: int, scale: float = 1.0, most: int = 300) -> Any:
    """Show the page at http://127.0.0.1:`port`; the launched `gradio.Blocks`. See `page`.

    Raises:
        ValueError: the port is taken.
    """
    theme = _gradio(folder).themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    blocks = page(run, folder, scale, most)
    # Gradio asks its own page whether it is there: not by way of a proxy.
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
        raise ValueError(f"port {port} cannot be had ({error}); name another: --port") from error
    return blocks


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_integer("port", 7860, "Where the page is served: http://127.0.0.1:PORT.", 1, 65535)
    flags.DEFINE_integer("frames", 300, "Of a clip so many frames are answered at most.", 1)


def main():
    """Load the run, serve the page."""
    args = flags.FLAGS
    # Who ends a service ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="flowseg-demo-") as folder:
        # Looked for before the network is loaded, which takes longer.
        _gradio(folder)
        from flowseg.runs import load_run

        run = load_run(args.run_dir, args.weights)
        blocks = serve(run, folder, args.port, args.input_scale, args.frames)
        print(f"http://127.0.0.1:{args.port} shows the page; Ctrl-C ends it", flush=True)
        blocks.block_thread()
    sys.stdout.flush()
    # A network still at work in Gradio's thread would make of an ordinary exit an abort.
    os._exit(0)


def run():
    """Entry point of `flowseg-demo`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()

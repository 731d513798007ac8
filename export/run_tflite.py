"""Run a TFLite file on a video as an edge device does, encoding each frame once.

python -m export.run_tflite --model FILE.tflite --input VIDEO|FOLDER --output FILE.mp4

needs neither TensorFlow nor Keras, only NumPy, OpenCV, av, ai-edge-litert and absl-py. It writes
the same video as `flowseg.visualize`. Frames are resized to the size of the file. At the end it
prints the frames per second, of the network alone and including reading, drawing and writing.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from export import lite_file
from flowseg.cli import entry
from flowseg.cli import flags as shared_flags
from flowseg.data.labels import from_dict
from flowseg.media import pairs
from flowseg.media.frames import open_frames
from flowseg.media.video import SourceFrame
from flowseg.media.video_output import check_video_name
from flowseg.media.video_panels import DEFAULT_FPS, write_video


class LiteRun:
    """Presents an opened file as a run, for `write_video`.

    Attributes:
        label_set: classes of the file.
        seconds: total run time of the network so far.
    """

    def __init__(self, opened: lite_file.LiteFile):
        self._opened = opened
        self.label_set, self.seconds = from_dict(opened.metadata["label_set"]), 0.0

    def stream(
        self, frames: Iterable[np.ndarray], scale: float = 1.0
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Predict classes and flow of every frame of a video, as `flowseg.runs.Run.stream` does.

        Args:
            frames: (H, W, 3) uint8 RGB, of the file's size.
            scale: must be 1, since the file's size is fixed.

        Yields:
            (seg, flow) of each frame; see `pairs.stream`.

        Raises:
            ValueError: the scale is not 1. While iterating: a frame has another size.
        """
        if scale != 1:
            raise ValueError(f"scale: {scale}, but the size of a TFLite file's frames is fixed")
        opened, timed = self._opened, self._timed
        return pairs.stream(self._checked(frames), timed(opened.encode), timed(opened.decode))

    def _checked(self, frames):
        height, width = self._opened.metadata["height"], self._opened.metadata["width"]
        for number, frame in enumerate(frames):
            if frame.dtype != np.uint8 or frame.shape != (height, width, 3):
                raise ValueError(
                    f"frame {number}: {frame.dtype} of shape {frame.shape}, but the file takes "
                    f"uint8 of shape {(height, width, 3)}"
                )
            yield frame

    def _timed(self, function):
        def timed(*inputs):
            begin = time.perf_counter()
            outputs = function(*inputs)
            self.seconds += time.perf_counter() - begin
            return outputs

        return timed


def resized(frames: Iterable[SourceFrame], height: int, width: int) -> Iterator[SourceFrame]:
    """Yield frames, resized to the given size."""
    for frame in frames:
        image = frame.image
        if image.shape[:2] != (height, width):
            interpolation = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=interpolation)
        yield frame._replace(image=image)


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("model", None, "File of export.tflite.", required=True)
    shared_flags.define_input()
    flags.DEFINE_string(
        "output", None, "FILE.mp4 or FILE.webm; or a folder for images.", required=True
    )
    flags.DEFINE_integer("threads", 2, "Threads of the network.", 1)
    flags.DEFINE_float("overlay", 0.5, "Opacity of the class colours over the frame.", 0, 1)
    flags.adopt_module_key_flags(shared_flags)
    shared_flags.define_bit_depth()


def main():
    """Run the file on the video and print the frames per second."""
    args = flags.FLAGS
    opened = lite_file.read(args.model, args.threads)
    if Path(args.output).suffix:
        check_video_name(args.output)
    if Path(args.output).resolve() == Path(args.input).resolve():
        raise ValueError(f"--output {args.output}: is the input itself, which would be overwritten")
    frames, fps, count = open_frames(args.input, args.allow_gaps, args.bit_depth)
    lite_run = LiteRun(opened)
    frames = resized(frames, opened.metadata["height"], opened.metadata["width"])
    fps = fps or DEFAULT_FPS
    begin = time.perf_counter()
    written = write_video({"": lite_run}, frames, args.output, fps, count, overlay=args.overlay)
    seconds = time.perf_counter() - begin
    rate = written / lite_run.seconds
    print(
        f"wrote {args.output}: {written} frames; {rate:.1f} frames per second by the network, "
        f"{written / seconds:.1f} with reading, drawing and writing"
    )


def entry_point():
    """Run the command."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()

"""Run a TFLite file on a video, as an edge device does: each frame is encoded once.

python -m export.run_tflite --model FILE.tflite --input VIDEO|FOLDER --output FILE.mp4

needs neither TensorFlow nor Keras: NumPy, OpenCV, ai-edge-litert and absl-py do. What is written is
what `flowseg.visualize` writes. Frames are brought to the size that the file was made for. Ends
with the frames a second: of the network alone, and with reading, drawing and writing.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from export import lite_file
from flowseg.cli import entry
from flowseg.data.labels import from_dict
from flowseg.media import pairs
from flowseg.media.frames import check_video_name, open_frames
from flowseg.media.video_panels import DEFAULT_FPS, write_video


class LiteRun:
    """An opened file in the place of a run, for `write_video`.

    Attributes:
        label_set: the file's classes.
        seconds: of the network so far.
    """

    def __init__(self, opened: lite_file.LiteFile):
        self._opened = opened
        self.label_set, self.seconds = from_dict(opened.about["label_set"]), 0.0

    def stream(
        self, frames: Iterable[np.ndarray], scale: float = 1.0
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Classes and motion of every frame of a video, as `flowseg.runs.Run.stream` gives them.

        Args:
            frames: (H, W, 3) uint8 RGB, of the size that the file was made for.
            scale: 1; the size is the file's.

        Yields:
            (seg, flow) of each frame; see `pairs.stream`.

        Raises:
            ValueError: another scale. While iterating: frames of another size.
        """
        if scale != 1:
            raise ValueError(f"scale: {scale}, but the size of a TFLite file's frames is fixed")
        opened, timed = self._opened, self._timed
        return pairs.stream(self._checked(frames), timed(opened.encode), timed(opened.decode))

    def _checked(self, frames):
        height, width = self._opened.about["height"], self._opened.about["width"]
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


def fitted(
    frames: Iterable[tuple[str, np.ndarray]], height: int, width: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Named frames, brought to that size."""
    for name, image in frames:
        if image.shape[:2] != (height, width):
            how = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=how)
        yield name, image


def define_flags():
    """The flags of this command."""
    flags.DEFINE_string("model", None, "File of export.tflite.", required=True)
    flags.DEFINE_string("input", None, "Video file, or folder of frames.", required=True)
    flags.DEFINE_string(
        "output", None, "FILE.mp4 or FILE.webm; or a folder for pictures.", required=True
    )
    flags.DEFINE_integer("threads", 2, "Cores that the network may use.", 1)
    flags.DEFINE_float("overlay", 0.5, "Strength of the class colours over the frame.", 0, 1)


def main():
    """Open, run, tell."""
    args = flags.FLAGS
    opened = lite_file.read(args.model, args.threads)
    if Path(args.output).suffix:
        check_video_name(args.output)
    if Path(args.output).resolve() == Path(args.input).resolve():
        raise ValueError(f"--output {args.output}: is the input itself, which would be lost")
    frames, fps, count = open_frames(args.input)
    lite_run = LiteRun(opened)
    frames = fitted(frames, opened.about["height"], opened.about["width"])
    fps = fps or DEFAULT_FPS
    begin = time.perf_counter()
    written = write_video({"": lite_run}, frames, args.output, fps, count, overlay=args.overlay)
    whole = time.perf_counter() - begin
    alone = written / lite_run.seconds
    print(
        f"wrote {args.output}: {written} frames; {alone:.1f} frames a second by the network, "
        f"{written / whole:.1f} with reading, drawing and writing"
    )


def run():
    """Entry point."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()

"""Run a TFLite file on a video, as an edge device does: each frame is encoded once.

python -m export.run_tflite --model FILE.tflite --input VIDEO|FOLDER --output FILE.mp4

needs neither TensorFlow nor Keras: NumPy, OpenCV, ai-edge-litert and absl-py do. What is written is
what `flowseg.visualize` writes. Frames are brought to the size that the file was made for. Ends
with the frames a second: of the network alone, and with reading, drawing and writing.
"""

import time
from pathlib import Path

import cv2
from absl import flags

from export import lite_file
from flowseg.cli import entry
from flowseg.data.labels import from_dict
from flowseg.media.frames import check_video_name, open_frames
from flowseg.media.video_panels import DEFAULT_FPS, write_video


class Stream:
    """An opened file in the place of a run: consecutive pairs in, each frame encoded once.

    Attributes:
        label_set: the file's classes.
        seconds: of the network so far.
    """

    def __init__(self, opened):
        self._opened, self._image, self._features = opened, None, None
        self.label_set, self.seconds = from_dict(opened.about["label_set"]), 0.0

    def predict_pair(self, image1, image2, scale=1.0):
        """(H, W) uint8 train ids and (H, W, 2) float32 flow of two (H, W, 3) uint8 RGB frames.

        If `image1` is the `image2` of the call before, its features are those of then. `scale` is
        not looked at: the size is the file's.
        """
        begin = time.perf_counter()
        known = self._features if image1 is self._image else self._opened.encode(image1)
        self._image, self._features = image2, self._opened.encode(image2)
        answers = self._opened.decode(known, self._features)
        self.seconds += time.perf_counter() - begin
        return answers


def fitted(frames, height, width):
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
    stream = Stream(opened)
    frames = fitted(frames, opened.about["height"], opened.about["width"])
    fps = fps or DEFAULT_FPS
    begin = time.perf_counter()
    written = write_video({"": stream}, frames, args.output, fps, count, overlay=args.overlay)
    whole = time.perf_counter() - begin
    print(
        f"wrote {args.output}: {written} frames; {written / stream.seconds:.1f} frames a second by "
        f"the network, {written / whole:.1f} with reading, drawing and writing"
    )


def run():
    """Entry point."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()

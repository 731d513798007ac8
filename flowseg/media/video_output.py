"""Writes videos with FFmpeg, through PyAV."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)

from flowseg import files

_FROM_RGB = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
# WebM stores times in milliseconds.
_WEBM_RATE = 1000


class _Format(NamedTuple):
    codec: str
    colorspace: Colorspace
    options: dict[str, str]
    container_options: dict[str, str]


FORMATS = {
    ".mp4": _Format(
        "libx264",
        Colorspace.ITU709,
        {"crf": "18", "preset": "veryfast"},
        # The index comes first, so that browsers can play the file while they load it.
        {"movflags": "+faststart"},
    ),
    # VP8 always has the colours of BT.601.
    ".webm": _Format(
        "libvpx",
        Colorspace.ITU601,
        # Several threads wait for each other busily: ten times the CPU time on a busy machine.
        {"crf": "8", "b": "20M", "deadline": "realtime", "cpu-used": "4", "threads": "1"},
        {},
    ),
}


def check_video_name(path: str | os.PathLike) -> None:
    """Raise ValueError unless `path` has a suffix of a video format that can be written."""
    if Path(path).suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: the video's name must end in {' or '.join(FORMATS)}")


@contextlib.contextmanager
def video_writer(path: str | os.PathLike, fps: float | Fraction) -> Iterator[Callable[..., None]]:
    """Write a video: `with video_writer(path, fps) as write: write(frame)`.

    The file gets its final name only if the block succeeds and the video reads back with the size,
    times and number of frames that were written. If Ctrl-C or a bad frame ends the block, the
    frames written so far remain as FILE.part.mp4 (or .webm). Odd sizes are padded by one column or
    row at the right or bottom, because the formats require even sizes.

    Args:
        path: FILE.mp4 for H.264, which players and web browsers show; FILE.webm for VP8, whose
            encoder is free of patents and of the GPL. Its folder is created if missing.
        fps: frames per second.

    Yields:
        A function that takes one (H, W, 3) uint8 RGB frame, and optionally its time in seconds
        since the first frame; by default frame n is at n / fps. All frames must have the same
        size, and each must be later than the one before.

    Raises:
        ValueError: the suffix is unsupported, there are no frames, their sizes differ or their
            times do not rise, or the rate is too high for WebM; also any ValueError or OSError of
            the block, with the partial file added to its message.
        OSError: the video cannot be written, or does not read back as written.
    """
    check_video_name(path)
    path = Path(path)
    rate = Fraction(fps).limit_denominator(1001)
    if path.suffix.lower() == ".webm" and rate > _WEBM_RATE:
        raise ValueError(
            f"{path}: WebM stores times in milliseconds, too few for {float(rate):g} frames per "
            "second; write FILE.mp4"
        )
    # Fine enough for the times of any source, and exact for a constant rate.
    tick = Fraction(1, rate.numerator * math.ceil(60_000 / rate.numerator))
    converter, times, shape, sink = VideoReformatter(), [], None, None
    # The encoder's answers, one for each frame that it has received.
    received = []

    def write(frame, time=None):
        nonlocal sink, shape
        number = len(received)
        if shape and frame.shape != shape:
            raise ValueError(f"{path}: frame {number} is {_size_text(frame)}, unlike the first")
        pts = round((number / rate if time is None else time) / tick)
        if times and pts <= times[-1]:
            raise ValueError(f"{path}: frame {number} is not later than the frame before it")
        picture = _picture(frame, converter, FORMATS[path.suffix.lower()])
        picture.pts, picture.time_base = pts, tick
        picture.duration = round(1 / rate / tick)
        if sink is None:
            sink, shape = _open(partial, path, picture, rate, tick), frame.shape
        container, stream = sink
        times[number:] = [pts]
        # One call into C for encoding, writing and counting, which Ctrl-C does not interrupt.
        received.extend(map(container.mux, [stream.encode_lazy(picture)]))

    def finish():
        container, stream = sink
        # After an error or Ctrl-C in here it runs again: the encoder may be empty already.
        with contextlib.suppress(av.error.EOFError):
            container.mux(stream.encode_lazy(None))
        container.close()
        size = [n + n % 2 for n in shape[1::-1]]
        _check_video(partial, path, (*size, len(received)), times[len(received) - 1] * tick)

    with files.atomic(path) as partial, _os_errors(path):
        try:
            yield write
            if not received:
                raise ValueError(f"{path}: no frame to write")
            finish()
        except (KeyboardInterrupt, ValueError, OSError) as error:
            if not received:
                raise
            finish()
            partial_video = path.with_suffix(f".part{path.suffix}")
            partial.replace(partial_video)
            message = f"{partial_video} holds the {len(received)} frames so far"
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(message) from error
            raise ValueError(f"{error}; {message}") from error
        finally:
            if sink is not None:
                with contextlib.suppress(av.FFmpegError):
                    sink[0].close()


@contextlib.contextmanager
def _os_errors(path):
    """Raise FFmpeg's errors as OSError."""
    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno or 0, error.strerror or str(error), str(path)) from error


def _picture(frame, converter, kind):
    """Return a frame as PyAV's, padded to an even size, in the colours of the format."""
    odd_height, odd_width = frame.shape[0] % 2, frame.shape[1] % 2
    if odd_height or odd_width:
        frame = cv2.copyMakeBorder(frame, 0, odd_height, 0, odd_width, cv2.BORDER_REPLICATE)
    return converter.reformat(
        av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
        format="yuv420p",
        interpolation=_FROM_RGB,
        dst_colorspace=kind.colorspace,
        dst_color_range=ColorRange.MPEG,
        threads=1,
    )


def _open(partial, path, picture, rate, tick):
    """Return the container and the stream for frames like `picture`."""
    kind = FORMATS[path.suffix.lower()]
    try:
        av.Codec(kind.codec, "w")
    except av.codec.codec.UnknownCodecError as error:
        others = " or ".join(f"FILE{suffix}" for suffix in FORMATS if suffix != path.suffix.lower())
        raise ValueError(
            f"{path}: this FFmpeg has no encoder {kind.codec}; write {others}"
        ) from error
    container = av.open(f"file:{partial}", "w", options=kind.container_options)
    stream = container.add_stream(
        kind.codec,
        rate,
        options=kind.options,
        time_base=tick,
        width=picture.width,
        height=picture.height,
    )
    # Within a frame, which is PyAV's default, parallel encoding costs quality.
    stream.thread_type = "AUTO"
    context = stream.codec_context
    context.colorspace, context.color_range = int(kind.colorspace), int(ColorRange.MPEG)
    context.color_primaries, context.color_trc = int(ColorPrimaries.BT709), int(ColorTrc.BT709)
    return container, stream


def _check_video(partial, path, expected, end):
    """Raise OSError unless the file has the (width, height, frames) and the time of the last."""
    try:
        with av.open(f"file:{partial}") as container:
            stream = container.streams.video[0]
            readable, count, last = False, 0, 0
            for packet in container.demux(stream):
                count += bool(packet.size)
                last = max(last, packet.pts or 0)
                readable = readable or bool(stream.decode(packet))
            actual = stream.width, stream.height, count
            last *= stream.time_base
    except av.FFmpegError as error:
        raise OSError(f"{path}: the video does not read back ({error.strerror})") from error
    if not readable or actual != expected or abs(last - end) > Fraction(2, 1000):
        raise OSError(
            f"{path}: the video does not read back as written (width, height, frames {actual} "
            f"instead of {expected}, the last at {float(last):g} instead of {float(end):g} s); is "
            "the disk full?"
        )


def _size_text(image):
    return f"{image.shape[1]}x{image.shape[0]} px"

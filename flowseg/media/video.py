"""Reads videos with FFmpeg, through PyAV; `media.video_output` writes them.

Frames are (H, W, 3) uint8 RGB and are read one at a time, so that memory use does not depend on the
length of a video.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from flowseg import console
from flowseg.media.video_filters import oriented, progressive

# Suffixes to recognise a video without opening it; `open_video` also tries other files.
VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".m2ts",
    ".wmv",
    ".asf",
    ".flv",
    ".ogv",
    ".3gp",
    ".gif",
)

# Without these flags swscale rounds down: the mean of a frame is more than one grey level darker.
# With them the planar gbrp takes two thirds of the time of rgb24.
_TO_RGB = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Larger values are clock rates, which FFmpeg reports for some files without a frame rate.
_MAX_RATE = 10_000
# Seconds that an address may take to answer.
_TIMEOUT = 30


class SourceFrame(NamedTuple):
    """One frame of a video or of a folder of images.

    Attributes:
        name: file name, or "frame N" of a video, counted from 0.
        image: (H, W, 3) uint8 RGB.
        time: seconds since the first frame; None if unknown, as for files of a folder.
        sequence: number of the gapless sequence that the frame belongs to; frames of different
            sequences are not a pair.
    """

    name: str
    image: np.ndarray
    time: Fraction | None = None
    sequence: int = 0


def is_address(path: str | os.PathLike) -> bool:
    """Whether `path` is an address for FFmpeg, such as rtsp://camera/1, and no existing file."""
    text = os.fspath(path)
    is_text = isinstance(text, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text)
    return bool(is_text) and not Path(text).exists()


def open_video(
    path: str | os.PathLike, on_damage: Callable[[str], None] = console.warn
) -> tuple[Iterator[SourceFrame], Fraction | None, int | None]:
    """Open a video file or an address that FFmpeg reads, such as rtsp:// or http://.

    Interlaced frames are de-interlaced, one frame for both fields. Rotation and mirroring marks
    are applied. Colours are converted with the matrix and range that the video declares; without
    a declaration, with FFmpeg's default, limited-range BT.601. The pixel aspect ratio is ignored.

    A damaged video is read as far as FFmpeg decodes it; at the end one line states what FFmpeg
    reported, and whether packets that the header lists are missing.

    Args:
        path: file or address.
        on_damage: called with that line; default: a warning on stderr.

    Returns:
        (frames, fps, count): an iterator of `SourceFrame`; frames per second, or None if unknown;
        the number of frames according to the header, or None. Times that differ from those of a
        constant rate by the rounding of the file format are replaced by these.

    Raises:
        ValueError: there is no video, or it has fewer than two readable frames; or, while
            iterating, a frame differs in size from the first.
    """
    container = _open(path)
    stream = container.streams.best("video")
    if stream is None or stream.disposition & stream.disposition.attached_pic:
        container.close()
        raise ValueError(f"{path}: has no video stream, only sound or a cover image")
    if stream.codec_context is None:
        container.close()
        raise ValueError(f"{path}: this FFmpeg has no decoder for its video stream")
    rates = stream.average_rate, stream.guessed_rate
    rate = next((rate for rate in rates if rate and 0 < rate <= _MAX_RATE), None)
    problems = []
    rest = _frames(container, stream, rate, path, problems, on_damage)
    # Read two frames now: only this shows that the video can be decoded.
    first = list(itertools.islice(rest, 2))
    if len(first) < 2:
        rest.close()
        reason = f" ({problems[0]})" if problems else ""
        raise ValueError(
            f"{path}: holds {len(first)} readable frames, but flow needs at least two{reason}"
        )
    return itertools.chain(first, rest), rate, _count(stream, container, rate)


def _open(path):
    # PyAV discards FFmpeg's messages by default; at this level it still counts the errors.
    if av.logging.get_level() is None:
        av.logging.set_level(av.logging.PANIC)
    options = {"metadata_errors": "replace"}
    if is_address(path):
        # As OpenCV does: over UDP, RTSP loses packets.
        options |= {"timeout": _TIMEOUT, "options": {"rtsp_transport": "tcp"}}
        address = os.fspath(path)
    else:
        # Otherwise FFmpeg takes what is before a colon in the name for a protocol.
        address = f"file:{os.fspath(path)}"
    try:
        return av.open(address, **options)
    except av.FFmpegError as error:
        raise ValueError(f"{path}: not a video that FFmpeg can read ({_reason(error)})") from error


def _reason(error):
    return error.strerror or type(error).__name__


def _count(stream, container, rate):
    """Return the number of frames according to the header, or None."""
    if stream.frames:
        return stream.frames
    if stream.duration and stream.time_base:
        seconds = stream.duration * stream.time_base
    else:
        seconds = Fraction(container.duration or 0, av.time_base)
    # MPEG program streams have no header; their duration is the time of the last packet.
    if not rate or seconds <= 0 or container.format.name == "mpeg":
        return None
    return round(seconds * rate) or None


def _frames(container, stream, rate, path, problems, on_damage):
    """Yield `SourceFrame`s; append a text to `problems` for each kind of damage."""
    converter, packets, index, start, last = VideoReformatter(), [0], 0, None, None
    # AVI stores no times; FFmpeg's are those of decoding.
    no_times = container.format.name == "avi"
    error_count = av.logging.get_last_error()[0]
    first_error = None
    # Frames are decoded in parallel; PyAV's default is parallel only within a frame.
    stream.thread_type = "AUTO"
    try:
        decoded = _decoded(container, stream, packets, path, problems)
        for frame in progressive(decoded, stream.time_base):
            errors, latest = av.logging.get_last_error()
            if errors > error_count and first_error is None:
                first_error = index, latest
            time = None if no_times or frame.pts is None else frame.pts * Fraction(frame.time_base)
            start = time if start is None else start
            if time is not None:
                time -= start
            time = last = _regular(time, last, index, rate, stream.time_base)
            # One thread: on a busy machine, handing over so little work takes longer than the work.
            planar = converter.reformat(frame, format="gbrp", interpolation=_TO_RGB, threads=1)
            image = np.ascontiguousarray(planar.to_ndarray())
            yield SourceFrame(f"frame {index}", oriented(image, frame, path), time)
            index += 1
        errors, latest = av.logging.get_last_error()
        if errors > error_count:
            at, (_, _, text) = first_error or (index, latest)
            number = errors - error_count
            problems.append(
                f"FFmpeg reported {number} error{'s' * (number > 1)}, the first near frame {at}: "
                f"{text.strip()}"
            )
        if packets[0] < stream.frames:
            problems.append(
                f"it ends early: {packets[0]} of the {stream.frames} frames in its header "
                "could be read"
            )
        # With fewer frames, `open_video` raises an error.
        if problems and index > 1:
            on_damage(f"{path}: {'; '.join(problems)}")
    except av.FFmpegError as error:
        raise ValueError(f"{path}: frame {index} cannot be converted ({_reason(error)})") from error
    finally:
        # PyAV frees the decoder while it holds Python's lock, for which a decoding thread that
        # reports an error would wait: let the threads finish first.
        stream.codec_context.flush_buffers()
        container.close()


def _decoded(container, stream, packets, path, problems):
    """Yield PyAV's frames, and count the packets."""
    size, index = None, 0
    demuxed = container.demux(stream)
    ended = False
    while not ended:
        try:
            packet = next(demuxed, None)
        except av.FFmpegError as error:
            problems.append(f"reading stops after frame {index - 1}: {_reason(error)}")
            packet = None
        ended = packet is None
        packets[0] += bool(packet and packet.size)
        try:
            decoded = stream.decode(packet)
        except av.error.EOFError:
            # The last packet of `demux` has already emptied the decoder.
            decoded = []
        except av.FFmpegError as error:
            decoded = []
            if not any(text.startswith("decoding failed") for text in problems):
                problems.append(f"decoding failed near frame {index}: {_reason(error)}")
        for frame in decoded:
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise ValueError(
                    f"{path}: frame {index} has {frame.width}x{frame.height} px, but the frames "
                    f"before it have {size[0]}x{size[1]}; cut the video there"
                )
            index += 1
            yield frame


def _regular(time, last, index, rate, time_base):
    """Return the time of a frame: that of the constant rate if the file's is a rounding of it."""
    if not rate:
        return time
    expected = index / rate
    # Some formats round times to their own clock, such as milliseconds.
    rounding = min(Fraction(time_base), Fraction(1, 1000))
    if time is None or abs(time - expected) <= rounding:
        time = expected
    # Damaged and concatenated files may jump back.
    return time if last is None or time > last else last + 1 / rate

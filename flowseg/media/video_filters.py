"""De-interlaces and rotates the decoded frames of a video."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer


def progressive(frames: Iterable[av.VideoFrame], time_base: Fraction) -> Iterator[av.VideoFrame]:
    """De-interlace from the first interlaced frame on; one frame results from each frame.

    Args:
        frames: decoded frames, in order.
        time_base: unit of their times in seconds.
    """
    graph = None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            graph = _deinterlacer(frame, time_base)
        if graph is None:
            yield frame
        else:
            graph.vpush(frame)
            yield from _pulled(graph)
    if graph is not None:
        graph.vpush(None)
        yield from _pulled(graph)


def _deinterlacer(frame, time_base):
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=time_base
    )
    # send_frame: one output frame per frame, not per field. Progressive frames are unchanged.
    bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
    return graph


def _pulled(graph):
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def oriented(image: np.ndarray, frame: av.VideoFrame, path: object) -> np.ndarray:
    """Apply a frame's display matrix: rotation by a multiple of 90 degrees, and mirroring.

    Args:
        image: (H, W, 3) pixels of `frame`.
        frame: the decoded frame, with the matrix in its side data.
        path: the video, for messages.

    Raises:
        ValueError: the angle is not a multiple of 90 degrees.
    """
    # Not `frame.side_data`: the frame would refer to it and it to the frame, and hundreds of frames
    # would stay in memory until Python's garbage collector runs.
    items = SideDataContainer(frame)
    data = next((item for item in items if item.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return image
    # Display x = a x + c y and y = b x + d y; FFmpeg stores a b u c d v ... as integers.
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    if not (a or c) or not (b or d):
        return image
    if min(abs(a), abs(b)) > 0.01 * max(abs(a), abs(b)):
        raise ValueError(
            f"{path}: is marked as rotated by {frame.rotation} degrees, which is no multiple of 90"
        )
    if abs(a) < abs(b):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1])

"""Finds the size of each video, so that a frame of another size can be refused."""

from collections import Counter
from collections.abc import Sequence

from data_prep.conversion.frames import Frame
from flowseg.data import image_headers

# JPEG files may begin with a large thumbnail.
_HEADER_BYTES = 2**17


def with_video_sizes(frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames, with `video_size` set in videos whose frames differ in size.

    It is the size of most frames of the video, by the headers of the files.
    """
    counts = {}
    for frame in frames:
        if frame.video and frame.files["image1"].is_file():
            with open(frame.files["image1"], "rb") as file:
                size = image_headers.size(file.read(_HEADER_BYTES))
            if size:
                counts.setdefault(frame.video, Counter())[size] += 1
    return [
        frame._replace(video_size=counts[frame.video].most_common(1)[0][0])
        if len(counts.get(frame.video, ())) > 1
        else frame
        for frame in frames
    ]

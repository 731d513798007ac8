"""Reads the files of a frame and checks that each is valid and fits the others.

Does not import TensorFlow, so that worker processes start fast and stay small.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from data_prep.conversion import label_maps, resized
from flowseg.data import flow_io, image_headers, images, masks

# The last number of a name, and the text before and after it.
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.ASCII | re.DOTALL)


class Encoder(NamedTuple):
    """Computes the content of a record field whose official file records cannot store.

    Attributes:
        function: called as function(file, *paths) in the process that reads the frame; returns the
            bytes to store. Picklable: a module's function, or a `functools.partial` of one. It
            raises ValueError naming the file.
        paths: further files that it reads, such as a map of invalid pixels.
    """

    function: Callable[..., bytes]
    paths: tuple[Path, ...] = ()


class Frame(NamedTuple):
    """The files of one record, not yet read.

    Attributes:
        frame_id: unique in the data set.
        files: record field (image1, image2, flow, flow_noc, backward_flow, occlusion, labels,
            instances, objects) -> file. A missing file is an error of this frame, raised when the
            frame is read.
        copies: record field -> further files with the same content (from another source or the
            other official set): images must have equal pixels, all other files equal bytes.
        label_set: name of the numbering of `labels`, see `flowseg.data.labels`.
        known_ids: every id that `labels` may contain; default: `flowseg.data.labels.KNOWN_IDS`.
        palette, mask_values: the ids of colours and of stored values in `labels`, see
            `flowseg.data.masks.decode`; default: the palette of the built-in label set.
        video: name of the video that the frame is of, unique in the data set; default: none. The
            frames of a video stay in one split.
        frame_index: number of image1 in its video; consecutive frames differ by 1.
        next_index: number of image2 in the video; default: `frame_index` + 1.
        video_size: (width, height) of the video, if its frames differ; set by `writer.write`.
        group: frames of one group (several videos of a place) stay in one split; default: none.
        instances_format: encoding of `instances`, see `flowseg.data.records`.
        flow_format: encoding of flow PNGs, see `flowseg.data.records`.
        encoders: record field -> :class:`Encoder` of its file; default: files are stored as they
            are.
        bit_depth: how many bits 16-bit images of the data set use; set by `writer.write`.
        records_size: (height, width) to resize to; set by `writer.write`.
        uncompressed: whether to store PNG files without compression; set by `writer.write`.
    """

    frame_id: str
    files: dict[str, Path]
    copies: dict[str, tuple[Path, ...]] = {}
    label_set: str = ""
    known_ids: tuple[int, ...] = ()
    video: str = ""
    frame_index: int = 0
    next_index: int | None = None
    video_size: tuple[int, int] | None = None
    group: str = ""
    instances_format: str = "kitti"
    flow_format: str = "kitti"
    encoders: dict[str, Encoder] = {}
    palette: masks.Palette = {}
    mask_values: dict[int, int] = {}
    bit_depth: int | None = None
    records_size: Sequence[int] | None = None
    uncompressed: bool = False


def split_number(stem: str) -> tuple[str, int, str] | None:
    """Split a name at its last number: (text before, number, text after); None without a number."""
    match = _NUMBERED.fullmatch(stem)
    return (match[1], int(match[2]), match[3]) if match else None


def find_next(paths: Iterable[Path], steps: Sequence[int]) -> dict[Path, Path]:
    """Find the next frame of each frame that has one.

    It is in the same folder and has the same name, except that the last number in the name is
    higher by one of `steps`; the first step for which a file exists is used.

    Args:
        paths: image files, as Path.
        steps: differences of the frame numbers, in order of preference.

    Returns:
        dict, image file -> next image file.

    Raises:
        ValueError: two files with the same number (`a_1.png`, `a_01.png`), which is ambiguous.
    """
    path_of = {}
    for path in paths:
        if parts := split_number(path.stem):
            before, number, after = parts
            key = (path.parent, before, after, number)
            if key in path_of:
                raise ValueError(
                    f"{path}: same frame number as {path_of[key].name}: rename one of the two"
                )
            path_of[key] = path
    next_of = {}
    for (*video, number), path in path_of.items():
        candidates = (path_of.get((*video, number + step)) for step in steps)
        if next_path := next(filter(None, candidates), None):
            next_of[path] = next_path
    return next_of


def image_files(frames: Iterable[Frame]) -> list[Path]:
    """List the image files of frames and their copies, each once, in order."""
    paths = {}
    for frame in frames:
        for field in ("image1", "image2"):
            sources = (frame.files.get(field), *frame.copies.get(field, ()))
            paths |= dict.fromkeys(path for path in sources if path)
    return list(paths)


# Required bit depth of id maps: at another one the ids would be misread.
_BITS = {"objects": 8, "instances": 16, "occlusion": 8}


def read_frame(frame: Frame) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read, decode and check every file of a frame.

    Returns:
        (fields, facts): the arguments of `flowseg.data.records.make_example` except `dataset`;
        and {"height", "width", "truth": names of the optional fields present,
        "class_pixels": {label id: pixels}, "images": {"alpha" and "png": images whose alpha channel
        was dropped, and that are stored as PNG instead of the bytes of their files}}.

    Raises:
        ValueError: naming the first file that is missing, damaged, or does not fit the others.
        OSError: a file cannot be read.
    """
    data = {field: _read(path, frame.encoders.get(field)) for field, path in frame.files.items()}
    image = images.decode(data["image1"], frame.files["image1"], frame.bit_depth)
    height, width = image.shape[:2]
    fields = {**data, "frame_id": frame.frame_id, "height": height, "width": width}
    if frame.video:
        fields |= {"video": frame.video, "frame_index": frame.frame_index}
        if "image2" in data:
            fields["next_index"] = frame.next_index or frame.frame_index + 1
        _check_video_size(frame, data["image1"])
    class_pixels, changes = {}, Counter()
    for field, path in frame.files.items():
        if field in ("image1", "image2"):
            is_first = field == "image1"
            decoded = image if is_first else images.decode(data[field], path, frame.bit_depth)
            stored, fields[f"{field}_format"] = images.for_records(data[field], decoded)
            fields[field] = stored
            changes["alpha"] += images.has_alpha(data[field], path)
            changes["png"] += stored is not data[field]
        elif field in ("flow", "flow_noc", "backward_flow"):
            decoded, flow_format = _decode_flow(data[field], path, frame.flow_format)
            if fields.setdefault("flow_format", flow_format) != flow_format:
                raise ValueError(f"{path}: both flow files of a frame must have the same format")
        elif field == "labels":
            mask_ids = label_maps.MaskIds(
                frame.label_set, frame.known_ids, frame.palette, frame.mask_values
            )
            decoded, fields["labels"] = label_maps.decode(data["labels"], path, mask_ids)
        else:
            decoded = decode_ids(data[field], path)
            bits = 8 * decoded.itemsize
            if bits != _BITS.get(field, bits):
                raise ValueError(f"{path}: {bits} bits, but {field} have {_BITS[field]}")
        if decoded.shape[:2] != (height, width):
            raise ValueError(
                f"{path}: is {_size(decoded)}, but {frame.files['image1'].name} is {_size(image)}"
                + _turned(data["image1"])
            )
        if field == "instances":
            fields["instances_format"] = frame.instances_format
        if field == "labels":
            fields["label_set"] = frame.label_set
            class_pixels = label_maps.count(decoded, path, mask_ids)
    for field, paths in frame.copies.items():
        for path in paths:
            _check_copy(field, data[field], frame.files[field], path, frame.bit_depth)
    if frame.records_size:
        fields |= resized.resize_fields(fields, *frame.records_size)
        height, width = frame.records_size
    if frame.uncompressed:
        fields |= {field: _uncompress(fields[field]) for field in data}
    truth = sorted(set(data) - {"image1"})
    facts = {"height": height, "width": width, "truth": truth, "class_pixels": class_pixels}
    return fields, {**facts, "images": dict(changes)}


def _check_video_size(frame, data):
    size = image_headers.size(data)
    if frame.video_size and size != frame.video_size:
        sizes = ("x".join(map(str, each[::-1])) for each in (size, frame.video_size))
        raise ValueError(
            "{}: is {}, but most frames of video {} are {}: a frame of another video?".format(
                frame.files["image1"], next(sizes), frame.video, next(sizes)
            )
        )


def _turned(data):
    mark = image_headers.orientation(data)
    return f" after its EXIF orientation {mark} is applied" if mark != 1 else ""


def _read(path, encoder=None):
    for required in (path, *(encoder.paths if encoder else ())):
        if not required.is_file():
            raise ValueError(f"{required}: missing (is the data set unpacked completely?)")
    return encoder.function(path, *encoder.paths) if encoder else path.read_bytes()


def _decode_flow(data, name, png_format):
    # An encoder may give the content of a .flo file for a file with another ending.
    is_flo = name.suffix.lower() == ".flo" or data[:4] == np.float32(flow_io.FLO_MAGIC).tobytes()
    flow_format = "flo" if is_flo else png_format
    flow = flow_io.decode_flow(data, flow_format, name)
    if not flow[..., 2].any():
        raise ValueError(f"{name}: flow without a single valid pixel")
    return flow, flow_format


def decode_ids(data: bytes, name: str | Path) -> np.ndarray:
    """Decode a PNG of ids to (H, W), 8 or 16 bits.

    Raises:
        ValueError: damaged, or not a single channel; the message names the file by `name`.
    """
    flow_io.check_png(data, name)
    ids = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if ids is None:
        raise ValueError(f"{name}: not a readable PNG (damaged)")
    if ids.ndim != 2:
        raise ValueError(
            f"{name}: an id map must have one channel, but this one {_kind(ids)} (colours or a "
            "palette?): save the ids themselves as an 8-bit grey PNG"
        )
    return ids


def _uncompress(data):
    """Return the bytes of a PNG without compression; those of other files unchanged."""
    if image_headers.form(data) != "png":
        return data
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    options = cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE
    return cv2.imencode(".png", image, options)[1].tobytes()


def _check_copy(field, data, path, copy, bit_depth):
    other = _read(copy)
    if other == data:
        return
    if field not in ("image1", "image2"):
        raise ValueError(
            f"{copy}: differs from {path}: keep one of the two, or make them identical"
        )
    pixels = (images.decode(*each, bit_depth) for each in ((other, copy), (data, path)))
    if not np.array_equal(*pixels):
        raise ValueError(f"{copy}: its pixels differ from {path}, which should be the same frame")


def _size(image):
    return f"{image.shape[0]}x{image.shape[1]}"


def _kind(image):
    return (
        f"has {image.dtype.itemsize * 8} bits and "
        f"{1 if image.ndim == 2 else image.shape[2]} channel(s)"
    )

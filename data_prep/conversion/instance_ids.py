"""Splits ids that name a class and an instance: id = class * divisor + number."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np

from data_prep.conversion.frames import Encoder, Frame, decode_ids

# With a larger divisor, instances are stored as Cityscapes does, class * 1000 + number in 16 bits.
_KITTI_DIVISOR = 256
_MAX_NUMBER, _MAX_CLASS = 999, 64


def with_instances(frame: Frame, divisor: int) -> Frame:
    """Return the frame with labels and instances out of its `labels` file, which has such ids."""
    return frame._replace(
        files={**frame.files, "instances": frame.files["labels"]},
        encoders={
            "labels": Encoder(partial(encode_classes, divisor)),
            "instances": Encoder(partial(encode_instances, divisor)),
        },
        instances_format=_format(divisor),
    )


def _format(divisor):
    return "kitti" if divisor <= _KITTI_DIVISOR else "cityscapes"


def _read(divisor, path):
    ids = decode_ids(path.read_bytes(), path).astype(int)
    classes, numbers = np.divmod(ids, divisor)
    if classes.max() > 255:
        raise ValueError(
            f"{path}: id {ids.max()} is class {classes.max()} with the divisor {divisor}, but "
            "classes are at most 255"
        )
    return classes, numbers


def encode_classes(divisor: int, path: Path) -> bytes:
    """Encode the classes, id // divisor, as an 8-bit grey PNG.

    Raises:
        ValueError: not a PNG of one channel, or a class is over 255.
    """
    return cv2.imencode(".png", _read(divisor, path)[0].astype(np.uint8))[1].tobytes()


def encode_instances(divisor: int, path: Path) -> bytes:
    """Encode the instances as a 16-bit PNG in KITTI's or Cityscapes' format.

    The number 0, id % divisor, stands for no single instance.

    Raises:
        ValueError: not a PNG of one channel, or an instance does not fit into the format.
    """
    classes, numbers = _read(divisor, path)
    if _format(divisor) == "kitti":
        coded = classes * 256 + numbers
    else:
        if numbers.max() > _MAX_NUMBER or classes[numbers > 0].max(initial=0) > _MAX_CLASS:
            raise ValueError(
                f"{path}: the largest class is {classes.max()}, the largest number "
                f"{numbers.max()} with the divisor {divisor}, but classes with instances are at "
                f"most {_MAX_CLASS} and numbers at most {_MAX_NUMBER}"
            )
        coded = np.where(numbers > 0, classes * 1000 + numbers, classes)
    return cv2.imencode(".png", coded.astype(np.uint16))[1].tobytes()

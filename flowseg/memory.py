"""Estimates the memory of images, predictions and trainings, and refuses what cannot fit.

The operating system kills a process that runs out of memory without a message. The estimates are
therefore compared with the available memory before the work starts. They are lower bounds,
rounded down from measurements (docs/install.md), so that nothing is refused that would have fitted.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from flowseg.errors import ArgumentError

# Bytes per pixel of a decoded image: its values, and a copy of them in the decoder.
_IMAGE = 6
# Bytes per pixel of a frame pair: the frames and predictions (on a GPU, these alone are in the
# computer's memory), and everything with the network's features on a CPU.
_ARRAYS = 100
_PREDICTION = 400
_LITE = 800  # a TFLite file
# Bytes per pixel of a training crop, on a CPU: with a trained encoder, and with a frozen one.
_TRAINING = {"resnet50": (5500, 1000), "efficientnet_lite0": (3500, 1000)}

_CGROUPS = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available() -> int | None:
    """Return how many bytes this process can use, swap included; None if unknown.

    This is the memory that the system has left, or that the control groups (of a container, for
    example) allow, and the memory that the process has already, which libraries use again. Only
    Linux reports it.
    """
    meminfo = _read(_MEMINFO)
    if not meminfo:
        return None
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    free = {name: int(text.split()[0]) * 1024 for name, text in fields.items()}
    if "MemAvailable" not in free:
        return None
    left = min([free["MemAvailable"], *_left_in_groups()])
    used = int(_read("/proc/self/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return left + used + free.get("SwapFree", 0)


def _left_in_groups() -> Iterator[int]:
    """Yield the bytes that each control group of this process, versions 1 and 2, has left."""
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = _CGROUPS / controllers
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            limit, usage = (_read(group / name).strip() for name in names[:2])
            if limit.isdigit() and usage.isdigit():
                # The usage includes cached files, which the system drops when memory is needed.
                stat = dict(x.split() for x in _read(group / "memory.stat").splitlines())
                yield int(limit) - int(usage) + int(stat.get(names[2], 0))
            if group == root:
                break


def _read(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def require(
    needed: float,
    what: str,
    remedy: str,
    *arguments: str,
    path: str | os.PathLike | None = None,
) -> None:
    """Raise an error unless `needed` bytes are available.

    Args:
        needed: estimate in bytes.
        what: what needs the memory.
        remedy: what the user can do.
        *arguments: arguments that the remedy names, see `ArgumentError`.
        path: the file that it is about, if any.

    Raises:
        ArgumentError: the estimate exceeds `available`.
    """
    left = available()
    if left is not None and needed > left:
        raise ArgumentError(
            f"{what} needs about {needed / 1e9:,.1f} GB of memory, but {left / 1e9:,.1f} GB is "
            f"available: {remedy}",
            *arguments,
            path=path,
        )


def require_for_prediction(
    height: int, width: int, remedy: str = "lower input_scale, or give smaller frames"
) -> None:
    """Raise an error unless there is memory to predict a frame pair with Keras or a SavedModel.

    Args:
        height: height at which the network processes the frames, px.
        width: width, px.
        remedy: what the user can do.

    Raises:
        ArgumentError: see `require`.
    """
    what = f"a prediction of {width}x{height} px"
    require(bytes_of_prediction(height * width), what, remedy, "input_scale", "height", "width")


def bytes_of_prediction(pixels: int) -> int:
    """Estimate the bytes that a prediction needs, given the number of pixels of one frame."""
    return pixels * (_ARRAYS if _computes_elsewhere() else _PREDICTION)


def require_for_lite_file(height: int, width: int, remedy: str) -> None:
    """Raise an error unless there is memory to run a TFLite file; see `require_for_prediction`."""
    what = f"a TFLite file for frames of {width}x{height} px"
    require(height * width * _LITE, what, remedy, "height", "width")


def require_for_training(
    backbone: str, batch_size: int, height: int, width: int, partly: bool, bytes_per_value: int = 4
) -> None:
    """Raise an error unless there is memory for a training step.

    Args:
        backbone: see `network.backbones.build_encoder`.
        batch_size: number of examples of a step.
        height: height of the crops, px.
        width: width, px.
        partly: whether the encoder is frozen, or only one stream is trained.
        bytes_per_value: 4 for float32, 2 for bfloat16.

    Raises:
        ArgumentError: see `require`.
    """
    per_pixel = (
        _ARRAYS if _computes_elsewhere() else _TRAINING[backbone][partly] * bytes_per_value / 4
    )
    needed = batch_size * height * width * per_pixel
    what = f"a training step with batch_size={batch_size} and crops of {width}x{height} px"
    remedy = "lower batch_size, height or width"
    require(needed, what, remedy, "batch_size", "height", "width")


def require_for_image(width: int, height: int, name: str | os.PathLike) -> None:
    """Raise an error if an image of this size is too large to decode.

    Raises:
        ValueError: it has more pixels than OpenCV decodes, or see `require`.
    """
    text = f"an image of {width}x{height} px"
    # The limits of OpenCV, whose error is an assertion.
    if width > 2**20 or height > 2**20 or width * height > 2**30:
        raise ValueError(f"{name}: {text}, but OpenCV reads at most 2^30 pixels: make it smaller")
    require(_IMAGE * width * height, text, "make it smaller", path=name)


def _computes_elsewhere():
    """Whether the network runs on a GPU, which has memory of its own."""
    # Looked up, not imported: they take seconds to start, and may not be installed.
    jax, tensorflow = sys.modules.get("jax"), sys.modules.get("tensorflow")
    if os.environ.get("KERAS_BACKEND") == "jax" and jax:
        return jax.default_backend() != "cpu"
    return bool(tensorflow) and bool(tensorflow.config.get_visible_devices("GPU"))

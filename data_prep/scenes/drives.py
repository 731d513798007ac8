"""Manages a folder of drives, videos of the street world, in the layout of Virtual KITTI 2.

A frame depends only on the settings in `scenes.json`, the number of the drive and its own number,
so that any number of processes and frames produce the same bytes. A frame is finished when all its
files have their final names. Differences from Virtual KITTI 2: frames are PNG, flow has KITTI's
16-bit encoding, classes and instances are images of numbers, and there is a folder `occlusion`.
"""

import functools
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from data_prep.conversion import workers
from data_prep.scenes import farm, folder
from flowseg import files
from flowseg.data import flow_io
from flowseg.data.labels import CITYSCAPES
from flowseg.errors import ArgumentError

MAX_DRIVES = 10_000  # names have four digits
MAX_FRAMES = 100_000  # names have five digits
RATE = 10.0  # frames per second by default, as in KITTI
VERSION = 1  # to be increased when the same settings give other drives
_RUN = 10  # frames of a task; each task looks at one frame more
# Folder and beginning of the name of each file of a frame, in the order of writing.
_FILES = {
    "image": ("rgb", "rgb"),
    "labels": ("classSegmentation", "classgt"),
    "instances": ("instanceSegmentation", "instancegt"),
    "flow": ("forwardFlow", "flow"),
    "occlusion": ("occlusion", "occlusion"),
    "backward": ("backwardFlow", "backwardFlow"),
}


def write_drives(
    output: str | Path,
    count: int,
    frames: int,
    seed: int = 0,
    height: int = 375,
    width: int = 1242,
    effects: bool = True,
    speed: float | None = None,
    rate: float = RATE,
    processes: int | None = None,
) -> None:
    """Render the missing frames of drives 0..count-1 in `output`, and print a summary.

    Args:
        output: folder; created if missing.
        count: number of drives, 1..`MAX_DRIVES`.
        frames: number of frames of each, 2..`MAX_FRAMES`.
        seed: 0 or more.
        height, width: size of the frames, px, within `store.SIZES`.
        effects: whether to simulate blur, noise and other camera effects.
        speed: mean speed of the camera, metres per second; None: drawn for each drive.
        rate: frames per second.
        processes: number of processes; default: one per core.

    Raises:
        ValueError: MuJoCo is missing, an argument is out of range, or `output` is a file, contains
            something else, or is in use.
        OSError: reading or writing failed, or a worker process died; finished frames are kept.
    """
    output = Path(output)
    _check(output, count, frames, height, width)
    busy = "another run is using this folder: wait for it, or give another output"
    with files.lock(output, busy, "output"):
        plan = {"version": VERSION, "world": "street", "seed": seed, "height": height}
        plan |= {"width": width, "effects": effects, "photos": None, "layout": "vkitti2"}
        plan |= {"flow_encoding": "kitti", "labels": "cityscapes", "instances": "cityscapes"}
        plan |= {"speed": None if speed is None else float(speed), "rate": float(rate)}
        folder.claim(output / folder.PLAN, plan)
        total = count * frames
        todo = sum(len(_missing(output, drive, frames)) for drive in range(count))
        described = f"frames of {count} drives"
        if not todo:
            print(f"{output}: all {total} {described} are already finished, nothing to do")
            return
        if todo < total:
            print(f"{output}: resuming, {total - todo} of {total} {described} are already finished")
        settings = (seed, height, width, effects, plan["speed"], plan["rate"])
        make = functools.partial(make_frames, output, settings, frames)
        tasks = _tasks(output, count, frames)
        processes = min(processes or len(workers.cores()), todo)
        print(folder.render(make, tasks, processes, total, total - todo, "frame"))


def _check(output, count, frames, height, width):
    """Validate the arguments before anything is written."""
    if not 2 <= frames <= MAX_FRAMES:
        reason = f"frames={frames}: a drive has 2 to {MAX_FRAMES} frames"
        raise ArgumentError(reason, "frames")
    if not 1 <= count <= MAX_DRIVES:
        reason = f"count={count}: with frames, count is the number of drives, 1 to {MAX_DRIVES}"
        raise ArgumentError(reason, "count", "frames")
    if height > 2 * width:
        raise ArgumentError(
            f"height={height}: street frames can be at most twice as high as wide", "height"
        )
    farm.load("street")
    if output.exists() and not output.is_dir():
        raise ArgumentError("is a file; output must be a folder", "output", path=output)
    foreign = sorted(output.glob("Scene*"))
    if foreign and not (output / folder.PLAN).exists():
        raise ArgumentError(
            f"holds a folder {foreign[0].name} that this command did not create "
            f"(no {folder.PLAN} beside it): give another output",
            "output",
            path=output,
        )


def scene(output: Path, drive: int) -> Path:
    """Return the folder of a drive."""
    return output / f"Scene{drive:04d}" / "clone"


def paths(output: Path, drive: int, frame: int, frames: int) -> dict[str, Path]:
    """Map the fields of a frame to its files; the drive has `frames` frames.

    The last frame has no flow forward, nor occlusion, and the first none backward.
    """
    fields = dict(_FILES)
    if frame == 0:
        del fields["backward"]
    if frame == frames - 1:
        del fields["flow"], fields["occlusion"]
    root = scene(output, drive) / "frames"
    return {
        field: root / subfolder / "Camera_0" / f"{name}_{frame:05d}.png"
        for field, (subfolder, name) in fields.items()
    }


def _missing(output, drive, frames):
    """Return the numbers of the frames that lack a file; remove leftovers of killed runs."""
    done = np.ones(frames, bool)
    for field, (subfolder, name) in _FILES.items():
        exists = np.zeros(frames, bool)
        place = scene(output, drive) / "frames" / subfolder / "Camera_0"
        if place.is_dir():
            with os.scandir(place) as entries:
                for entry in entries:
                    number = entry.name.removeprefix(f"{name}_").removesuffix(".png")
                    if entry.name.startswith(".partial-"):
                        os.unlink(entry.path)
                    elif len(number) == 5 and number.isdecimal() and int(number) < frames:
                        # An empty file is left by a power failure before the data was on disk.
                        exists[int(number)] = entry.stat().st_size > 0
        if field == "backward":
            exists[0] = True
        if field in ("flow", "occlusion"):
            exists[-1] = True
        done &= exists
    if not (scene(output, drive) / "colors.txt").exists():
        done[0] = False  # it is written with the first frame
    return np.flatnonzero(~done)


def _tasks(output, count, frames) -> Iterator[tuple[int, int, int]]:
    """Yield drive, first frame and end of runs of missing frames."""
    for drive in range(count):
        missing = _missing(output, drive, frames)
        for run in np.split(missing, np.flatnonzero(np.diff(missing) != 1) + 1):
            for start in range(0, len(run), _RUN):
                part = run[start : start + _RUN]
                yield drive, int(part[0]), int(part[-1]) + 1


def make_frames(
    output: Path, settings: tuple, frames: int, task: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Render frames of a drive and write their files, each atomically.

    Args:
        output: the folder of drives.
        settings: all fields of `route.Settings` but the first.
        frames: number of frames of the drive.
        task: drive, first frame, and end of the frames to render.

    Returns:
        (number of frames, bytes written, peak memory of this process in bytes).

    Raises:
        ValueError: a frame has no pixel with known flow.
        OSError: naming the file that cannot be written.
    """
    from data_prep.scenes import route, video

    cv2.setNumThreads(1)  # there is already one process per core
    drive, first, end = task
    numbers, size = range(first, end), 0
    rendered = video.render(route.Settings(drive, *settings), numbers)
    for number, frame in zip(numbers, rendered, strict=True):
        if not (frame.valid.any() and frame.backward_valid.any()):
            reason = f"drive {drive}, frame {number}: no pixel has known flow: give a lower speed"
            raise ArgumentError(reason, "speed")
        data = {
            "image": _encode(frame.image[..., ::-1]),  # OpenCV expects BGR
            "labels": _encode(frame.labels),
            "instances": _encode(frame.instances),
            "flow": flow_io.encode_kitti_flow(frame.flow, frame.valid),
            "occlusion": _encode(np.uint8(255) * ~frame.visible),
            "backward": flow_io.encode_kitti_flow(frame.backward, frame.backward_valid),
        }
        if number == 0:
            files.write(scene(output, drive) / "colors.txt", colours())
        for field, path in paths(output, drive, number, frames).items():
            files.write(path, data[field])
            size += len(data[field])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return len(numbers), size, peak * (1 if sys.platform == "darwin" else 1024)


def _encode(image):
    return cv2.imencode(".png", image)[1].tobytes()


def colours() -> str:
    """Return `colors.txt`: each class and its grey in `classSegmentation`, the Cityscapes id."""
    lines = ["Category r g b"]
    for name, (label,) in zip(CITYSCAPES.names, CITYSCAPES.ids["cityscapes"], strict=True):
        lines.append(f"{name.replace(' ', '_')} {label} {label} {label}")
    return "\n".join(lines) + "\n"

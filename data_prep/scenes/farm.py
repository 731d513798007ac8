"""What a worker process does: it makes a pair and writes its files in KITTI's layout."""

import importlib
import os
import resource
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import cv2

from flowseg import files
from flowseg.data import flow_io
from flowseg.errors import ArgumentError

SETS = ("data_scene_flow", "data_semantics")
# Where each file of a pair goes and how its name ends, in the order in which they are written.
_FILES = {
    "image1": (f"{SETS[0]}/training/image_2", "_10.png"),
    "image2": (f"{SETS[0]}/training/image_2", "_11.png"),
    "image1_again": (f"{SETS[1]}/training/image_2", "_10.png"),
    "labels": (f"{SETS[1]}/training/semantic", "_10.png"),
    "flow_noc": (f"{SETS[0]}/training/flow_noc", "_10.png"),
    "flow": (f"{SETS[0]}/training/flow_occ", "_10.png"),
}


class Job(NamedTuple):
    """What all pairs of a folder share; see `data_prep.scenes.store.write_pairs`."""

    output: Path
    world: str
    seed: int
    height: int
    width: int
    effects: bool
    photos: tuple[Path, ...] | None


def places(world: str) -> dict[str, tuple[str, str]]:
    """Field -> (folder below the output, end of the file name after the six digits)."""
    of_set = SETS if world == "street" else SETS[:1]
    return {field: place for field, place in _FILES.items() if place[0].startswith(of_set)}


def load(world: str) -> ModuleType:
    """The module of a world; each needs packages that the others do without.

    Raises:
        ValueError: a package is missing.
    """
    try:
        return importlib.import_module(f"data_prep.scenes.{world}")
    except ImportError as error:
        raise ArgumentError(
            f"world={world} lacks a package ({error}): pip install -e '.[scenes]'", "world"
        ) from error


def make(job: Job, index: int) -> tuple[int, int]:
    """Make pair `index` and write its files, each whole or not at all.

    Returns:
        (bytes written, most bytes of memory that this process has ever held).

    Raises:
        ValueError: no pixel's flow is known and seen in both frames; or what the world raises.
        OSError: naming the file that cannot be written.
    """
    cv2.setNumThreads(1)  # there is a process for every core already
    pair = _make_pair(job, index)
    visible = pair.valid & pair.visible
    if not visible.any():
        # No reader of data sets would take such a file.
        raise ArgumentError(
            f"pair {index} of seed={job.seed} shows no flow: take another seed", "seed"
        )
    data = {
        "image1": _encode(pair.image1),
        "image2": _encode(pair.image2),
        "flow_noc": flow_io.encode_kitti_flow(pair.flow, visible),
        "flow": flow_io.encode_kitti_flow(pair.flow, pair.valid),
    }
    if pair.labels is not None:
        data["labels"] = _encode(pair.labels)
    paths = {
        field: job.output / folder / f"{index:06d}{ending}"
        for field, (folder, ending) in places(job.world).items()
    }
    for field, path in paths.items():
        if field == "image1_again":
            _link(paths["image1"], path)
        else:
            files.write(path, data[field])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return sum(map(len, data.values())), peak * (1 if sys.platform == "darwin" else 1024)


def _make_pair(job, index):
    world = load(job.world)
    photos = {} if job.photos is None else {"photos": job.photos}
    size = {"height": job.height, "width": job.width}
    try:
        return world.make_pair(index, job.seed, **size, **photos, effects=job.effects)
    except ValueError as error:
        raise ValueError(f"pair {index}: {error}") from error
    except Exception as error:
        error.add_note(f"(while making pair {index} of seed={job.seed})")
        raise


def _encode(picture):
    picture = picture[..., ::-1] if picture.ndim == 3 else picture  # OpenCV wants BGR
    return cv2.imencode(".png", picture)[1].tobytes()


def _link(path, name):
    """Give a file a second name, or copy it where the drive knows no such thing."""
    with files.whole(name) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)

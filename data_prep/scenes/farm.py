"""Renders single pairs in worker processes and writes their files in KITTI's layout."""

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
# Folder and file name ending of each file of a pair, in the order of writing.
_FILES = {
    "image1": (f"{SETS[0]}/training/image_2", "_10.png"),
    "image2": (f"{SETS[0]}/training/image_2", "_11.png"),
    "image1_again": (f"{SETS[1]}/training/image_2", "_10.png"),
    "labels": (f"{SETS[1]}/training/semantic", "_10.png"),
    "flow_noc": (f"{SETS[0]}/training/flow_noc", "_10.png"),
    "flow": (f"{SETS[0]}/training/flow_occ", "_10.png"),
}


class Job(NamedTuple):
    """Settings shared by all pairs of a folder; see `data_prep.scenes.store.write_pairs`."""

    output: Path
    world: str
    seed: int
    height: int
    width: int
    effects: bool
    photos: tuple[Path, ...] | None
    motion: float = 1.0


def locations(world: str) -> dict[str, tuple[str, str]]:
    """Map each field to (folder below the output, file name ending after the six digits)."""
    sets = SETS if world == "street" else SETS[:1]
    return {field: location for field, location in _FILES.items() if location[0].startswith(sets)}


def load(world: str) -> ModuleType:
    """Import the module of a world; worlds require different packages.

    Raises:
        ValueError: a package is missing.
    """
    try:
        return importlib.import_module(f"data_prep.scenes.{world}")
    except ImportError as error:
        raise ArgumentError(
            f"world={world} requires a missing package ({error}): pip install -e '.[scenes]'",
            "world",
        ) from error


def make(job: Job, index: int) -> tuple[int, int]:
    """Render pair `index` and write its files, each atomically.

    Returns:
        (bytes written, peak memory of this process in bytes).

    Raises:
        ValueError: no pixel has known flow and is visible in both frames; or raised by the world.
        OSError: naming the file that cannot be written.
    """
    cv2.setNumThreads(1)  # there is already one process per core
    pair = _make_pair(job, index)
    visible = pair.valid & pair.visible
    if not visible.any():
        # Converters reject a flow file without a valid pixel.
        raise ArgumentError(
            f"pair {index} of seed={job.seed} has no visible flow: choose another seed", "seed"
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
        for field, (folder, ending) in locations(job.world).items()
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
    world_settings = {} if job.photos is None else {"photos": job.photos, "motion": job.motion}
    size = {"height": job.height, "width": job.width}
    try:
        return world.make_pair(index, job.seed, **size, **world_settings, effects=job.effects)
    except ValueError as error:
        raise ValueError(f"pair {index}: {error}") from error
    except Exception as error:
        error.add_note(f"(while rendering pair {index} of seed={job.seed})")
        raise


def _encode(image):
    image = image[..., ::-1] if image.ndim == 3 else image  # OpenCV expects BGR
    return cv2.imencode(".png", image)[1].tobytes()


def _link(path, name):
    """Hard-link a file, or copy it if the file system does not support links."""
    with files.atomic(name) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)

"""Answers as files: written by commands, and read where any method's are scored.

In the layouts of `predict` and of KITTI's servers; see `evaluate --predictions`. Flow is KITTI's
16-bit PNG or Middlebury's `.flo`; what is unknown in it is filled as KITTI's kit fills it.
"""

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from flowseg import files
from flowseg.data.flow_io import (
    KITTI_RANGE,
    check_png,
    encode_kitti_flow,
    fill_holes,
    flow_to_color,
    read_flow,
)
from flowseg.data.labels import IGNORE_LABEL, KNOWN_IDS, LabelSet, owner_id_table, train_id_table
from flowseg.errors import ArgumentError
from flowseg.media import drawing

# How many names an error tells.
_TOLD = 3


class Written(NamedTuple):
    """The answers of a folder, to be read frame by frame.

    Attributes:
        folder: Path.
        found: "seg" and "flow", each frame id -> file.
        label_set: the classes that the files are of.
        seg_ids: "train" or "label": the ids that they hold.
    """

    folder: Path
    found: dict
    label_set: object
    seg_ids: str

    def answer(self, frame: dict[str, Any]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Train ids and flow to a decoded frame, as `evaluation.count` asks for them; see `read`.

        What the frame has no truth for is not looked for: None.
        """
        name, size = frame["frame_id"].decode(), frame["seg"].shape
        has = {"seg": (frame["seg"] != IGNORE_LABEL).any(), "flow": frame["flow"][..., 2].any()}
        return tuple(self.read(kind, name, size) if has[kind] else None for kind in has)

    def read(self, kind: str, frame_id: str, size: tuple[int, int]) -> np.ndarray | None:
        """One frame's answer: (H, W) train ids, 255 = nothing said; or (H, W, 2) flow.

        None where the folder has no answer of this kind to any frame.

        Raises:
            ValueError: naming the file: it is missing, damaged, of another size or depth, or holds
                ids or flow that are none.
        """
        if not self.found[kind]:
            return None
        path = self.found[kind].get(frame_id)
        if path is None:
            raise ValueError(f"{self.folder}: holds no {kind} of frame {frame_id}")
        answer = _read_flow(path) if kind == "flow" else self._read_seg(path)
        if answer.shape[:2] != size:
            height, width = answer.shape[:2]
            raise ValueError(
                f"{path}: is {width}x{height} px, but frame {frame_id} is {size[1]}x{size[0]}: "
                "write answers at the frame's own size"
            )
        return answer

    def _read_seg(self, path):
        data = path.read_bytes()
        check_png(data, path)
        ids = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if ids is None or ids.dtype != np.uint8 or ids.ndim != 2:
            raise ValueError(f"{path}: not a PNG of 8 bits and one channel: class ids are to be")
        classes = len(self.label_set.names)
        if self.seg_ids == "label":
            numbering = next(iter(self.label_set.ids))
            known = [*KNOWN_IDS.get(numbering, range(256)), IGNORE_LABEL]
            table = train_id_table(self.label_set, numbering)
            told = f"{numbering} numbers no class so; are these train ids (seg_ids train)?"
        else:
            known, table = [*range(classes), IGNORE_LABEL], np.arange(256)
            told = (
                f"{self.label_set.name} has the train ids 0 to {classes - 1} (255: nothing said); "
                "are these the data set's own ids (seg_ids label)?"
            )
        foreign = np.setdiff1d(ids, known)
        if foreign.size:
            held = ", ".join(map(str, foreign[:_TOLD]))
            raise ArgumentError(f"holds {held}, but {told}", "seg_ids", path=path)
        return np.uint8(table[ids])


def _read_flow(path):
    """(H, W, 2), holes filled. A number that is none is a fault of the method's, and no hole."""
    flow = read_flow(path)
    if path.suffix == ".flo":
        told = np.frombuffer(path.read_bytes(), "<f4", offset=12).reshape(-1, 2)
        lost = (~np.isfinite(told)).any(-1).sum()
        if lost:
            raise ValueError(
                f"{path}: is no number at {lost} of {len(told)} pixels; where a method knows no "
                "flow, it is to write 1e10"
            )
    return fill_holes(flow)


def find_answers(folder: str | Path, label_set: LabelSet, seg_ids: str = "train") -> Written:
    """A folder of answers, in either layout.

    Raises:
        ValueError: no such folder, or no answers in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    found = {
        "seg": _by_frame(folder, "seg.png", "semantic", ".png"),
        "flow": _by_frame(folder, "flow.flo", "flow", ".flo")
        | _by_frame(folder, "flow.png", "flow", ".png"),
    }
    if not any(found.values()):
        raise ValueError(
            f"{folder}: holds no answers: <frame id>/seg.png and flow.png are looked for, or "
            "semantic/<frame id>.png and flow/<frame id>.png"
        )
    return Written(folder, found, label_set, seg_ids)


def _by_frame(folder, name, place, suffix):
    """Frame id -> file; an id may hold slashes, as those of videos do."""
    own = {path.parent.relative_to(folder).as_posix(): path for path in folder.rglob(name)}
    there = (path for path in (folder / place).rglob(f"*{suffix}") if path.name != name)
    return own | {
        path.relative_to(folder / place).with_suffix("").as_posix(): path for path in there
    }


def check_all_there(written: Written, wanted: dict[str, list[str]]) -> None:
    """Raise ValueError if frames with truth lack an answer that others have, or all have none.

    Args:
        written: a `Written`.
        wanted: "seg" and "flow", each the ids of the frames that have such truth.
    """
    if not any(ids and written.found[kind] for kind, ids in wanted.items()):
        held = " or ".join(kind for kind, found in written.found.items() if found)
        raise ValueError(f"{written.folder}: holds {held}, but no frame has such truth to score by")
    for kind, ids in wanted.items():
        missing = [i for i in ids if i not in written.found[kind]]
        if written.found[kind] and missing:
            told = ", ".join(missing[:_TOLD]) + ", ..." * (len(missing) > _TOLD)
            raise ValueError(
                f"{written.folder}: no {kind} for {len(missing)} of {len(ids)} frames that have "
                f"such truth: {told}"
            )


def summary(seg: np.ndarray, flow: np.ndarray, label_set: LabelSet) -> str:
    """One line: the three largest classes, and the median motion."""
    return f"{_main_classes(seg, label_set)}; {_motion(flow)}"


def _main_classes(seg, label_set, shown=3):
    counts = np.bincount(seg.ravel(), minlength=256)[: len(label_set.names)]
    largest = [i for i in np.argsort(-counts, kind="stable")[:shown] if counts[i]]
    return ", ".join(f"{label_set.names[i]} {counts[i] / seg.size:.0%}" for i in largest) or "void"


def _motion(flow):
    speed = np.hypot(flow[..., 0], flow[..., 1])
    text = f"median motion {np.median(speed):.2f} px"
    low, high = KITTI_RANGE
    # Not >= and <=, so that NaN counts as lost too.
    lost = int((~((flow >= low) & (flow <= high)).all(-1)).sum())
    return text + (f"; {lost} px move too far for flow.png, unknown there" if lost else "")


def write_answers(
    output: str | Path,
    seg: np.ndarray,
    flow: np.ndarray,
    label_set: LabelSet,
    seg_ids: str = "train",
) -> None:
    """Write (H, W) train ids and (H, W, 2) flow as the four PNG files into the folder `output`.

    Raises:
        OSError: a file cannot be written.
    """
    output = Path(output)
    ids = owner_id_table(label_set)[seg] if seg_ids == "label" else seg
    drawing.write_png(output / "seg.png", ids)
    files.write(output / "flow.png", encode_kitti_flow(flow))
    drawing.write_png(output / "seg_color.png", drawing.color_labels(seg, label_set))
    drawing.write_png(output / "flow_color.png", flow_to_color(flow))


def city_ids(label_set: LabelSet) -> np.ndarray | None:
    """(256,) uint8: train id -> Cityscapes' label id, by which KITTI's server knows the class.

    The first, where a class gathers several; None if the set has a class without any.
    """
    has_all = all(label_set.ids.get("cityscapes", [()]))
    return owner_id_table(label_set, "cityscapes") if has_all else None


def write_submission(
    output: str | Path, frame_id: str, seg: np.ndarray, flow: np.ndarray | None, label_set: LabelSet
) -> None:
    """Write one frame as KITTI's servers take it: label ids (8 bit) and flow (16 bit).

    Classes that are not known by Cityscapes' ids (see `city_ids`) are not written. Flow that the
    file cannot hold (beyond 512 px) is written as unknown; the kit fills it. `flow` None, of a
    frame that has no second one, is not written.
    """
    output, ids = Path(output), city_ids(label_set)
    if ids is not None:
        drawing.write_png(output / "semantic" / f"{frame_id}.png", ids[seg])
    if flow is not None:
        files.write(output / "flow" / f"{frame_id}.png", encode_kitti_flow(flow))

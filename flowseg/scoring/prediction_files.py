"""Folders of answers that some method wrote, to be scored: `evaluate --predictions`.

In the layouts of `answers`. Flow is KITTI's 16-bit PNG or Middlebury's `.flo`; what is unknown in
it is filled as KITTI's kit fills it.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from flowseg.data import records
from flowseg.data.flow_io import check_png, read_flow
from flowseg.data.labels import IGNORE_LABEL, KNOWN_IDS, train_id_table

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

    def answer(self, frame):
        """Train ids and flow to a decoded frame, as `evaluate.count` asks for them; see `read`.

        What the frame has no truth for is not looked for: None.
        """
        name, size = frame["frame_id"].decode(), frame["seg"].shape
        has = {"seg": (frame["seg"] != IGNORE_LABEL).any(), "flow": frame["flow"][..., 2].any()}
        return tuple(self.read(kind, name, size) if has[kind] else None for kind in has)

    def read(self, kind, frame_id, size):
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
            told = f"{numbering} numbers no class so; are these train ids (--seg_ids train)?"
        else:
            known, table = [*range(classes), IGNORE_LABEL], np.arange(256)
            told = (
                f"{self.label_set.name} has the train ids 0 to {classes - 1} (255: nothing said); "
                "are these the data set's own ids (--seg_ids label)?"
            )
        foreign = np.setdiff1d(ids, known)
        if foreign.size:
            raise ValueError(f"{path}: holds {', '.join(map(str, foreign[:_TOLD]))}, but {told}")
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


def find_answers(folder, label_set, seg_ids="train"):
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


def frames_with_truth(shards):
    """Ids of the frames that have labels ("seg"), and of those that have flow.

    Raises:
        ValueError: two frames have one id, so that their answers would be one file.
    """
    found, seen = {"seg": [], "flow": []}, {}
    for shard in shards:
        for _, fields in records.read_shard(shard):
            name = fields["frame_id"].decode()
            if name in seen:
                raise ValueError(
                    f"frame {name} is in {seen[name]} and in {shard}: answers are files by frame "
                    "id, so sets that share ids go one by one"
                )
            seen[name] = shard
            for kind, field in (("seg", "labels"), ("flow", "flow")):
                if fields[field]:
                    found[kind].append(name)
    return found


def check_all_there(written, wanted):
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


def fill_holes(flow):
    """(H, W, 3) (u, v, valid) -> (H, W, 2), unknown places filled as KITTI's kit fills them.

    Between two known pixels of a row the smaller u and the smaller v, beyond the outermost the
    nearest; then rows above and below all known ones from the nearest of their column
    (`interpolateBackground` of io_flow.h, KITTI 2015 development kit). A row between that knows
    nothing stays 0.
    """
    flow, valid = flow[..., :2].copy(), flow[..., 2] > 0
    if valid.all():
        return flow
    width = valid.shape[1]
    column = np.arange(width)
    before = np.maximum.accumulate(np.where(valid, column, -1), axis=1)
    after = np.minimum.accumulate(np.where(valid, column, width)[:, ::-1], axis=1)[:, ::-1]
    rows = np.nonzero(valid.any(1))[0]
    for row in rows:
        left, right = before[row], after[row]
        left, right = np.where(left < 0, right, left), np.where(right == width, left, right)
        flow[row] = np.minimum(flow[row, left], flow[row, right])
    if rows.size:
        flow[: rows[0]], flow[rows[-1] + 1 :] = flow[rows[0]], flow[rows[-1]]
    return flow

"""Writes predictions to files, and reads those of any method for scoring.

The layouts are those of `predict` and of KITTI's servers; see `evaluate --predictions`. Flow is
KITTI's 16-bit PNG or Middlebury's `.flo`; unknown pixels are filled as in KITTI's development kit.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowseg import files
from flowseg.data import masks
from flowseg.data.flow_io import (
    KITTI_RANGE,
    encode_kitti_flow,
    fill_holes,
    flow_to_color,
    read_flow,
)
from flowseg.data.labels import IGNORE_LABEL, KNOWN_IDS, LabelSet, label_id_table, train_id_table
from flowseg.errors import ArgumentError
from flowseg.media import drawing

# Maximum number of names or ids in an error message.
_MAX_LISTED = 3


class PredictionFolder(NamedTuple):
    """The predictions in a folder, read frame by frame.

    Attributes:
        folder: Path.
        files: for "seg" and "flow", a dict of frame id -> file.
        label_set: the classes of the files.
        seg_ids: "train" or "label": the kind of ids in the files.
    """

    folder: Path
    files: dict
    label_set: object
    seg_ids: str

    def read_frame(self, frame: dict[str, Any]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Read train ids and flow of a decoded frame, as `evaluation.count` needs them; see `read`.

        Each is None if the frame has no ground truth of that kind.
        """
        name, size = frame["frame_id"].decode(), frame["seg"].shape
        has = {"seg": (frame["seg"] != IGNORE_LABEL).any(), "flow": frame["flow"][..., 2].any()}
        return tuple(self.read(kind, name, size) if has[kind] else None for kind in has)

    def read(self, kind: str, frame_id: str, size: tuple[int, int]) -> np.ndarray | None:
        """Read one prediction: (H, W) train ids, 255 = no prediction; or (H, W, 2) flow.

        Returns None if the folder has no predictions of this kind.

        Raises:
            ValueError: the file is missing, damaged, has another size or depth, or has invalid ids
                or flow; the message names it.
        """
        if not self.files[kind]:
            return None
        path = self.files[kind].get(frame_id)
        if path is None:
            raise ValueError(f"{self.folder}: has no {kind} for frame {frame_id}")
        prediction = _read_flow(path) if kind == "flow" else self._read_seg(path)
        if prediction.shape[:2] != size:
            height, width = prediction.shape[:2]
            raise ValueError(
                f"{path}: is {width}x{height} px, but frame {frame_id} is {size[1]}x{size[0]}: "
                "write predictions at the size of the frame"
            )
        return prediction

    def _read_seg(self, path):
        numbering = next(iter(self.label_set.ids)) if self.seg_ids == "label" else None
        ids = masks.decode(path.read_bytes(), path, masks.palette(self.label_set, numbering))
        classes = len(self.label_set.names)
        if numbering:
            known = [*KNOWN_IDS.get(numbering, range(256)), IGNORE_LABEL]
            table = train_id_table(self.label_set, numbering)
            reason = f"{numbering} has no such label id; are these train ids (seg_ids train)?"
        else:
            known, table = [*range(classes), IGNORE_LABEL], np.arange(256)
            reason = (
                f"{self.label_set.name} has the train ids 0 to {classes - 1} (255: no prediction); "
                "are these label ids of the data set (seg_ids label)?"
            )
        unexpected = np.setdiff1d(ids, known)
        if unexpected.size:
            listed = ", ".join(map(str, unexpected[:_MAX_LISTED]))
            raise ArgumentError(f"holds {listed}, but {reason}", "seg_ids", path=path)
        return np.uint8(table[ids])


def _read_flow(path):
    """Read (H, W, 2) flow and fill unknown pixels; NaN and Inf raise an error."""
    flow = read_flow(path)
    if path.suffix == ".flo":
        vectors = np.frombuffer(path.read_bytes(), "<f4", offset=12).reshape(-1, 2)
        invalid = (~np.isfinite(vectors)).any(-1).sum()
        if invalid:
            raise ValueError(
                f"{path}: is NaN or Inf at {invalid} of {len(vectors)} pixels; write unknown "
                "flow as 1e10"
            )
    return fill_holes(flow)


def open_predictions(
    folder: str | Path, label_set: LabelSet, seg_ids: str = "train"
) -> PredictionFolder:
    """Open a folder of predictions, in either layout.

    Raises:
        ValueError: the folder does not exist, or has no predictions.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    files_by_kind = {
        "seg": _files_by_frame(folder, "seg.png", "semantic", ".png"),
        "flow": _files_by_frame(folder, "flow.flo", "flow", ".flo")
        | _files_by_frame(folder, "flow.png", "flow", ".png"),
    }
    if not any(files_by_kind.values()):
        raise ValueError(
            f"{folder}: has no predictions: expected <frame id>/seg.png and flow.png, or "
            "semantic/<frame id>.png and flow/<frame id>.png"
        )
    return PredictionFolder(folder, files_by_kind, label_set, seg_ids)


def _files_by_frame(folder, name, subfolder, suffix):
    """Map frame ids to files; an id may contain slashes, as the ids of video frames do."""
    by_folder = {path.parent.relative_to(folder).as_posix(): path for path in folder.rglob(name)}
    others = (path for path in (folder / subfolder).rglob(f"*{suffix}") if path.name != name)
    return by_folder | {
        path.relative_to(folder / subfolder).with_suffix("").as_posix(): path for path in others
    }


def check_complete(predictions: PredictionFolder, required: dict[str, list[str]]) -> None:
    """Raise ValueError if a frame with ground truth has no prediction, or nothing can be scored.

    A kind without any files is allowed if the other kind can be scored.

    Args:
        predictions: a `PredictionFolder`.
        required: for "seg" and "flow", the ids of the frames that have such ground truth.
    """
    if not any(ids and predictions.files[kind] for kind, ids in required.items()):
        kinds = " or ".join(kind for kind, files in predictions.files.items() if files)
        raise ValueError(f"{predictions.folder}: has {kinds}, but no frame has ground truth for it")
    for kind, ids in required.items():
        missing = [i for i in ids if i not in predictions.files[kind]]
        if predictions.files[kind] and missing:
            listed = ", ".join(missing[:_MAX_LISTED]) + ", ..." * (len(missing) > _MAX_LISTED)
            raise ValueError(
                f"{predictions.folder}: no {kind} for {len(missing)} of {len(ids)} frames that "
                f"have ground truth for it: {listed}"
            )


def summary(seg: np.ndarray, flow: np.ndarray, label_set: LabelSet) -> str:
    """Return a one-line summary: the three largest classes and the median motion."""
    return f"{_main_classes(seg, label_set)}; {_motion(flow)}"


def _main_classes(seg, label_set, shown=3):
    counts = np.bincount(seg.ravel(), minlength=256)[: len(label_set.names)]
    largest = [i for i in np.argsort(-counts, kind="stable")[:shown] if counts[i]]
    return ", ".join(f"{label_set.names[i]} {counts[i] / seg.size:.0%}" for i in largest) or "void"


def _motion(flow):
    speed = np.hypot(flow[..., 0], flow[..., 1])
    text = f"median motion {np.median(speed):.2f} px"
    outside = count_outside(flow)
    return text + (
        f"; {outside} px move too far for flow.png: stored as unknown" if outside else ""
    )


def count_outside(flow: np.ndarray) -> int:
    """Number of pixels of (H, W, 2) flow that KITTI's PNG stores as unknown."""
    low, high = KITTI_RANGE
    # Negated, so that NaN counts as out of range too.
    return int((~((flow >= low) & (flow <= high)).all(-1)).sum())


def write_predictions(
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
    ids = label_id_table(label_set)[seg] if seg_ids == "label" else seg
    drawing.write_png(output / "seg.png", ids)
    files.write(output / "flow.png", encode_kitti_flow(flow))
    drawing.write_png(output / "seg_color.png", drawing.color_labels(seg, label_set))
    drawing.write_png(output / "flow_color.png", flow_to_color(flow))


def write_numbered(
    output: str | Path,
    number: int,
    seg: np.ndarray,
    flow: np.ndarray | None,
    label_set: LabelSet,
    seg_ids: str = "train",
) -> None:
    """Write one frame of a video as `output`/seg/NNNNN.png and, if not None, flow/NNNNN.png.

    Raises:
        OSError: a file cannot be written.
    """
    ids = label_id_table(label_set)[seg] if seg_ids == "label" else seg
    drawing.write_png(Path(output) / "seg" / f"{number:05d}.png", ids)
    if flow is not None:
        files.write(Path(output) / "flow" / f"{number:05d}.png", encode_kitti_flow(flow))


def city_ids(label_set: LabelSet) -> np.ndarray | None:
    """(256,) uint8: train id -> Cityscapes label id, as used by KITTI's server.

    The first id is used if a class has several; None if any class of the set has no id.
    """
    has_all = all(label_set.ids.get("cityscapes", [()]))
    return label_id_table(label_set, "cityscapes") if has_all else None


def write_submission(
    output: str | Path, frame_id: str, seg: np.ndarray, flow: np.ndarray | None, label_set: LabelSet
) -> None:
    """Write one frame in the format of KITTI's servers: label ids (8 bit) and flow (16 bit).

    Classes are not written if any has no Cityscapes id (see `city_ids`). Flow beyond the range of
    the file (512 px) is written as unknown; KITTI's development kit fills it. `flow` may be None,
    for a frame without a second one, and is then not written.
    """
    output, ids = Path(output), city_ids(label_set)
    if ids is not None:
        drawing.write_png(output / "semantic" / f"{frame_id}.png", ids[seg])
    if flow is not None:
        files.write(output / "flow" / f"{frame_id}.png", encode_kitti_flow(flow))

"""Answers as files: what predict and evaluate write; `predictions` reads them.

Two layouts, by frame id:

<id>/seg.png, <id>/flow.png             predict's own; with *_color.png beside them to look at
semantic/<id>.png, flow/<id>.png        what KITTI's servers for semantics and for flow take
"""

from pathlib import Path

from flowseg import files
from flowseg.data.flow_io import encode_kitti_flow, flow_to_color
from flowseg.data.labels import owner_id_table
from flowseg.media import drawing


def write_answers(output, seg, flow, label_set, seg_ids="train"):
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


def city_ids(label_set):
    """(256,) uint8: train id -> Cityscapes' label id, by which KITTI's server knows the class.

    The first, where a class gathers several; None if the set has a class without any.
    """
    has_all = all(label_set.ids.get("cityscapes", [()]))
    return owner_id_table(label_set, "cityscapes") if has_all else None


def write_submission(output, frame_id, seg, flow, label_set):
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

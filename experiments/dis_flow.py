"""What flow without learning reaches: OpenCV's DIS, and no flow at all, on any records with flow.

    python -m experiments.dis_flow --records GLOB[,GLOB] --metrics_json FILE

The scores are those of `flowseg.evaluate`, on every pair that has flow truth, at its own size; the
file holds DIS's under the names of evaluate's metrics file. DIS: Kroeger et al., Fast Optical Flow
using Dense Inverse Search, 2016.
"""

import time
from pathlib import Path

from absl import flags

from flowseg import commands

# isort: split
import cv2
import numpy as np
from tqdm import tqdm

from flowseg import flow_io, records, runs, scoring

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
METHODS = ("zero", "dis")


def dis_flow(grey1, grey2, preset="medium"):
    """DIS flow of two (H, W) uint8 frames: (H, W, 2) float32 (u, v) in px.

    Raises:
        ValueError: frames too small for DIS.
    """
    method = cv2.DISOpticalFlow_create(PRESETS[preset])
    try:
        return method.calc(grey1, grey2, None)
    except cv2.error as error:
        height, width = grey1.shape
        raise ValueError(f"DIS cannot take frames of {width}x{height} px: {error.err}") from error


def pairs_with_flow(files):
    """Yields (folder/frame id, [grey1, grey2], truth) of each pair with flow.

    Truth is a dict of `flow` and, where there is such, `flow_noc`.

    Raises:
        ValueError: a damaged shard or picture, by name.
    """
    for path in files:
        for index, fields in records.read_shard(path):
            if not (fields["flow"] and fields["image2"]):
                continue
            name = f"{path}, record {index}"
            # Grey as the decoder makes it: `cvtColor` rounds otherwise, which moves DIS by 5 %.
            greys = [
                cv2.imdecode(np.frombuffer(fields[key], np.uint8), cv2.IMREAD_GRAYSCALE)
                for key in ("image1", "image2")
            ]
            if any(grey is None for grey in greys):
                raise ValueError(f"{name}: an image is damaged; convert this data again")
            is_flo = fields["flow_format"] == b"flo"
            decode = flow_io.decode_flo if is_flo else flow_io.decode_kitti_flow
            kinds = [key for key in ("flow", "flow_noc") if fields[key]]
            # Made pairs are named like KITTI's: the folder tells them apart.
            told = f"{Path(path).parent.name}/{fields['frame_id'].decode()}"
            yield told, greys, {kind: decode(fields[kind], name) for kind in kinds}


def score(files, preset="medium"):
    """Scores of DIS and of zero flow.

    Args:
        files: record shards; frames without flow are passed over.
        preset: key of PRESETS.

    Returns:
        (per_pair, pooled): {folder/frame id: {method: scores}}, sorted, and {method: scores}; the
        scores as `flowseg.evaluate` names them, and for DIS `seconds_per_pair`.

    Raises:
        ValueError: no frame has flow; a damaged file; frames too small for DIS.
    """
    pooled, seconds = {method: {} for method in METHODS}, []
    per_pair = {}
    for name, greys, truth in tqdm(pairs_with_flow(files), unit="pair", disable=None):
        begin = time.perf_counter()
        found = dis_flow(*greys, preset)
        seconds.append(time.perf_counter() - begin)
        if name in per_pair:
            raise ValueError(f"{name}: two pairs of this name: score their sets one by one")
        per_pair[name] = {}
        for method, flow in (("zero", np.zeros_like(found)), ("dis", found)):
            counts = scoring.count_flow(truth["flow"], flow, truth.get("flow_noc"))
            pooled[method] = scoring.add(pooled[method], counts)
            per_pair[name][method] = scoring.scores(counts)
        per_pair[name]["dis"]["seconds_per_pair"] = seconds[-1]
    if not per_pair:
        raise ValueError(f"{files[0]}: no pair with flow truth")
    results = {method: scoring.scores(counts) for method, counts in pooled.items()}
    results["dis"]["seconds_per_pair"] = float(np.mean(seconds))
    return dict(sorted(per_pair.items())), results


COLUMNS = {
    "flow/aepe": "AEPE (px)",
    "flow/fl_all": "Fl-all (%)",
    "flow/fl_all_per_image": "per image (%)",
    "flow/aepe_noc": "AEPE noc (px)",
    "flow/fl_all_noc": "Fl-all noc (%)",
    "seconds_per_pair": "seconds",
}


def table(per_pair, pooled):
    """Markdown of what `score` gives: a row a pair and method, and of all pairs together."""
    lines = [["pair", "flow", *COLUMNS.values()], ["---", "---", *["---:"] * len(COLUMNS)]]
    for name, methods in {**per_pair, f"all {len(per_pair)}": pooled}.items():
        for method, scores in methods.items():
            cells = (f"{scores[key]:.3f}" if key in scores else "-" for key in COLUMNS)
            lines.append([name, method, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def define_flags():
    """The flags of this command."""
    flags.DEFINE_list("records", None, "Record shards with flow: GLOB[,GLOB].", required=True)
    flags.DEFINE_enum("preset", "medium", list(PRESETS), "OpenCV's settings of DIS.")
    flags.DEFINE_string(
        "metrics_json", None, "File for the scores of DIS, and under zero/ of no flow."
    )


def main():
    """Score and tell."""
    args = flags.FLAGS
    per_pair, pooled = score(records.match_files(*args.records), args.preset)
    print(table(per_pair, pooled))
    if args.metrics_json:
        zero = {f"zero/{key}": value for key, value in pooled["zero"].items()}
        runs.write_json(args.metrics_json, pooled["dis"] | zero)
        print(f"wrote {args.metrics_json}")


if __name__ == "__main__":
    define_flags()
    commands.run(main)

"""Check that this checkout computes the same results as another one, bit for bit.

python -m experiments.studies.same_results --before CHECKOUT --records GLOB --output DIR

runs the same commands in both: a deterministic training of 30 steps with augmentation and
validation, the pretrained network's scores and predictions, and its TFLite files, float32 and int8;
then compares weights, history, scores, images and the outputs of the TFLite files. Run it before
merging a structural change that must not change results. Commands whose results are already in DIR
are not run again.
"""

import json
import subprocess
import sys
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import numpy as np

from export import lite_file
from flowseg import runs
from flowseg.media.frames import read_image

_SIZE = ("--height=128", "--width=320")
_PAIR = [f"experiments/pictures/kitti_pair_{i}.png" for i in (1, 2)]


def steps(records: str, folder: Path) -> dict[str, tuple[str, ...]]:
    """Name -> arguments of `python -m` for each command; it writes below `folder`."""
    pretrained = ("--weights=pretrained",)
    images = (f"--image1={_PAIR[0]}", f"--image2={_PAIR[1]}")
    training = (
        "flowseg.train",
        "--deterministic",
        f"--run_dir={folder / 'run'}",
        "--pictures=0",
        f"--train_records={records}",
        f"--val_records={records}",
        "--batch_size=2",
        "--backbone=efficientnet_lite0",
        "--height=64",
        "--width=96",
        "--warmup_steps=4",
        "--steps=30",
        "--steps_per_epoch=15",
        "--save_every=5",
        "--seg_loss=balanced",
        "--photometric=0.1",
        "--consistency=0.1",
    )
    exported = {
        f"tflite_{kind}": (
            "export.tflite",
            *pretrained,
            *_SIZE,
            f"--output={folder / kind}.tflite",
            f"--quantize={kind}",
            f"--calibration={records if kind == 'int8' else ''}",
        )
        for kind in ("none", "int8")
    }
    return {
        "train": training,
        "evaluate": (
            "flowseg.evaluate",
            *pretrained,
            f"--records={records}",
            f"--metrics_json={folder / 'scores.json'}",
        ),
        "predict": ("flowseg.predict", *pretrained, *images, f"--output={folder / 'answer'}"),
        **exported,
    }


def run_all(checkout: Path, records: str, folder: Path) -> None:
    """Run the commands in one checkout that have not been run yet.

    Raises:
        ValueError: a command failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, arguments in steps(records, folder).items():
        done = folder / f"{name}.done"
        if done.is_file():
            continue
        print(f"{checkout}: {name}", flush=True)
        log = folder / f"{name}.log"
        with open(log, "w") as trace:
            command = [sys.executable, "-m", *arguments]
            code = subprocess.run(command, cwd=checkout, stdout=trace, stderr=trace).returncode
        if code:
            raise ValueError(f"{log}: {name} ended with exit code {code}")
        done.touch()


def differences(one: Path, other: Path) -> list[str]:
    """Differences between two folders of `run_all`; empty if there are none."""
    differing = []
    for name in ("run/history.csv", "run/metrics.json", "scores.json", "answer/seg.png"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            differing.append(name)
    if (one / "answer/flow.png").read_bytes() != (other / "answer/flow.png").read_bytes():
        differing.append("answer/flow.png")
    for name in ("run/model.keras", "run/best.keras"):
        pairs = [runs.load_model(folder / name).get_weights() for folder in (one, other)]
        if not all(np.array_equal(a, b) for a, b in zip(*pairs, strict=True)):
            differing.append(name)
    for kind in ("none", "int8"):
        ours, theirs = (_tflite_outputs(folder / f"{kind}.tflite") for folder in (one, other))
        differing += [
            f"{kind}.tflite: {key}" for key in ours if not (ours[key] == theirs[key]).all()
        ]
    return differing


def _tflite_outputs(path):
    """Outputs of a TFLite file's `predict` for the frame pair, at the size of the file."""
    file = lite_file.read(path)
    height, width = file.metadata["height"], file.metadata["width"]
    seg, flow = file.predict(*(read_image(image)[:height, :width] for image in _PAIR))
    return {"seg": seg, "flow": flow}


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("before", None, "The other checkout.", required=True)
    flags.DEFINE_string(
        "records", None, "Records for training, scoring and calibration.", required=True
    )
    flags.DEFINE_string("output", None, "Folder for the results of both.", required=True)


def main():
    """Run and compare."""
    args = flags.FLAGS
    output, records = Path(args.output).resolve(), str(Path(args.records).resolve())
    folders = [output / "before", output / "now"]
    for checkout, folder in zip((Path(args.before), Path.cwd()), folders, strict=True):
        run_all(checkout, records, folder)
    if differing := differences(*folders):
        raise ValueError(f"these differ: {', '.join(differing)}")
    scores = json.loads((folders[1] / "scores.json").read_text())
    print(f"weights, history, {len(scores)} scores, predictions and TFLite outputs are the same")


if __name__ == "__main__":
    define_flags()
    entry.run(main)

"""Run the complete workflow: predict, render, convert, train, evaluate, draw and export.

python -m experiments.demo                   on synthetic streets: minutes on two cores
python -m experiments.demo --source KITTI    on your KITTI folder: experiments/kitti_sample.flags

The demo first runs the pretrained network on a real frame pair. Every step is one of the project's
commands and is printed before it runs, so that you can repeat it by hand. The first form scores
frames held out of training. The second over-fits your frames and scores the same frames, which
verifies the workflow, not the quality of the network.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
from data_prep.scenes import farm, store
from experiments import demo_page
from flowseg import runs
from flowseg.data import decoding, records
from flowseg.media import drawing, panels
from flowseg.media.frames import read_image

# Number and size of the synthetic street pairs.
COUNT, HEIGHT, WIDTH = 280, 128, 416
# The clip has another seed than the training data, so it is not part of them.
FILM = {"seed": 1, "index": 9, "count": 24}
# A real frame pair, downscaled to the width of a figure. The page credits its source.
PAIR = tuple(f"experiments/pictures/kitti_pair_{number}.png" for number in (1, 2))
# Brings the pair to about 375 rows, the size that the pretrained network knows.
PAIR_SCALE = 2
# Initial weights of each encoder: the package of the edge encoder's comes with `make setup`, those
# of ResNet50 would be a download.
BACKBONE_WEIGHTS = {"efficientnet_lite0": "imagenet", "resnet50": "none"}


def step(*arguments: object) -> None:
    """Print and run `python -m ARGUMENTS`.

    Raises:
        ValueError: the command failed, and has printed its error message.
    """
    arguments = [str(argument) for argument in arguments]
    print(f"\n$ python -m {' '.join(arguments)}", flush=True)
    _check(subprocess.run([sys.executable, "-m", *arguments]).returncode, arguments)


def steps_side_by_side(*commands: Sequence[object]) -> None:
    """Run commands that do not depend on each other, two at a time; print their output in order.

    Raises:
        ValueError: a command failed; its error message was printed.
    """
    commands = [[str(argument) for argument in command] for command in commands]

    def run(command):
        line = [sys.executable, "-m", *command]
        return subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    print(f"\nRunning {', '.join(command[0] for command in commands)}, two at a time", flush=True)
    # Most of their time is the tracing of a graph, which uses one core.
    with ThreadPoolExecutor(2) as pool:
        for command, done in zip(commands, pool.map(run, commands), strict=True):
            print(f"\n$ python -m {' '.join(command)}\n{done.stdout}", end="", flush=True)
            _check(done.returncode, command)


def _check(status, command):
    if status:
        raise ValueError(f"the step python -m {command[0]} failed")


def draw(run_dir: Path, files: Sequence[Path | str], output: Path, limit: int = 8) -> None:
    """Write one picture per frame: frames, ground truth, predictions and errors side by side."""
    run = runs.load_run(run_dir)
    empty(output)
    for frame in decoding.evaluation_data(files, run.label_set).take(limit).as_numpy_iterator():
        path = output / f"{frame['frame_id'].decode()}.png"
        predictions = run.predict(frame["image1"], frame["image2"])
        drawing.write_png(path, panels.draw_predictions(frame, *predictions, run.label_set))
        print(f"drew {path}")


def empty(folder: Path) -> None:
    """Create the folder, or empty it if it exists."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def film(folder: Path) -> None:
    """Write the frames of a drive through a synthetic street."""
    empty(folder)
    street = farm.load("street")
    for number, frame in enumerate(street.film(height=HEIGHT, width=WIDTH, **FILM)):
        drawing.write_png(folder / f"{number:04d}.png", frame)


def read_index(folder: Path) -> str | None:
    """Contents of a conversion's index.json, or None if there is none."""
    path = folder / "index.json"
    return path.read_text() if path.is_file() else None


def demo(output: str | None, source: str | None, backbone: str) -> None:
    """Run all steps, and write their results to the folder `output`."""
    output = Path(output or ("demo/synthetic" if source is None else "demo/yours"))
    recipe = "demo" if source is None else "kitti_sample"
    shown = ("--image1", PAIR[0], "--image2", PAIR[1], "--input_scale", PAIR_SCALE)
    named = ("--name", "KITTI 000003_10", "--output", output / "roads.png")
    step("experiments.studies.figure", "--weights", "pretrained", *shown, *named)
    # The name holds count, size and version, so that scenes of another version are not reused.
    scenes_dir = output / f"street-{COUNT}x{HEIGHT}x{WIDTH}-v{store.VERSION}"
    if source is None:
        size = ("--height", HEIGHT, "--width", WIDTH)
        step(
            "data_prep.scenes", "--world", "street", "--count", COUNT, *size, "--output", scenes_dir
        )
        film(output / "film")
    records_dir, run_dir = output / "records", output / f"run-{backbone}"
    held_out = 0.1 if source is None else 0
    convert = ("--output", records_dir, "--val_fraction", held_out, "--overwrite")
    previous_index = read_index(records_dir)
    step("data_prep.kitti", "--source", source or scenes_dir, *convert)
    if previous_index not in (None, read_index(records_dir)):
        # The frames changed since the last run: discard the network trained on the earlier ones.
        shutil.rmtree(run_dir, ignore_errors=True)
    shards = {split: records_dir / f"{split}-*.tfrecord" for split in ("train", "val")}
    scored = shards["val" if source is None else "train"]
    sets = ("--train_records", shards["train"], "--val_records", scored)
    encoder = ("--backbone", backbone, "--backbone_weights", BACKBONE_WEIGHTS[backbone])
    recipe = ("--flagfile", f"experiments/{recipe}.flags", *encoder)
    step("flowseg.train", *recipe, *sets, "--run_dir", run_dir)
    height, width = read_image(run_dir / runs.SAMPLE["image1"]).shape[:2]
    size = ("--height", height, "--width", width)
    network = ("--run_dir", run_dir)
    predictions = ("--output", output / "predictions", "--seg_ids", "label")
    metrics = ("--metrics_json", output / "metrics.json")
    commands = [
        ("export.tflite", *network, "--output", output / "flowseg.tflite", *size, "--overwrite"),
        ("flowseg.evaluate", *network, "--records", scored, *metrics, *predictions),
        ("export.saved_model", *network, "--output", output / "served", "--overwrite"),
    ]
    if source is None:
        video = ("--input", output / "film", "--output", output / "video.mp4")
        commands.append(("flowseg.visualize", *network, *video))
    steps_side_by_side(*commands)
    draw(run_dir, records.match_files(str(scored)), output / "pictures")
    if source is None:
        demo_page.animate(output / "video.mp4", output / "video.webp")
    summary = (
        "Each picture shows two consecutive frames, the classes and the motion that the network "
        "predicts for every pixel, the ground truth and the errors. The network was trained on "
        f"about nine tenths of {COUNT} synthetic street scenes; the scores and pictures are of the "
        "others."
    )
    if source is not None:
        summary = (
            "Each picture shows two consecutive frames, the classes and the motion that the "
            "network predicts for every pixel, the ground truth and the errors. The network was "
            f"trained and scored on the same frames of {source}, which verifies the workflow only."
        )
    title = "FlowSeg: classes and motion from two frames"
    demo_page.write_page(output, title, summary, run_dir.name)
    print(f"\nOpen {output}/index.html. In the same folder:")
    print("  roads.png       predictions of the pretrained network for a real frame pair")
    print("  pictures/       frames, ground truth, predictions and errors side by side")
    print("  metrics.json    the scores" + (" on held-out frames" if source is None else ""))
    if source is None:
        print("  video.mp4       input, classes and motion of a clip that was not used in training")
    print("  predictions/    seg.png and flow.png of each frame, as files for other programs")
    print("  served/, flowseg.tflite: exports for servers and for edge devices")
    print(f"  To view the training: tensorboard --logdir {output}")


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("source", None, "Your KITTI folder; default: synthetic streets.")
    flags.DEFINE_string(
        "output", None, "Output folder; default: demo/synthetic, or demo/yours with --source."
    )
    flags.DEFINE_enum(
        "backbone", "efficientnet_lite0", list(BACKBONE_WEIGHTS), "Encoder of the trained network."
    )


def main():
    """Run the demo."""
    demo(flags.FLAGS.output, flags.FLAGS.source, flags.FLAGS.backbone)


if __name__ == "__main__":
    define_flags()
    entry.run(main)

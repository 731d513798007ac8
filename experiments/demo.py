"""The whole way in one go: a first look, then render, convert, train, evaluate, draw, export.

python -m experiments.demo                   on made streets, minutes on two cores
python -m experiments.demo --source KITTI    on your KITTI folder, by experiments/kitti_sample.flags

First of all the network that comes with the package answers to a real pair. Every step is one of
the project's commands and is printed before it runs, so that it can be repeated by hand. The first
form scores frames held out of training. The second over-fits your frames and scores the same ones,
which proves the way and not the network.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
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

# Of the made streets.
COUNT, HEIGHT, WIDTH = 400, 128, 416
# A drive of another seed, so that no training saw it.
FILM = {"seed": 1, "index": 9, "count": 24}
# A real pair, shrunk to the width of a figure; its credit stands beside it and on the page.
PAIR = tuple(f"experiments/pictures/kitti_pair_{number}.png" for number in (1, 2))


def step(*arguments: object) -> None:
    """Run `python -m ARGUMENTS`, told on screen.

    Raises:
        ValueError: it failed; its own message stands above.
    """
    arguments = [str(argument) for argument in arguments]
    print(f"\n$ python -m {' '.join(arguments)}", flush=True)
    if subprocess.run([sys.executable, "-m", *arguments]).returncode:
        raise ValueError(f"the step python -m {arguments[0]} failed")


def draw(run_dir: Path, files: Sequence[Path | str], output: Path, most: int = 8) -> None:
    """Write one picture a frame: frames, truth, answers and errors side by side."""
    run = runs.load_run(run_dir)
    empty(output)
    for frame in decoding.evaluation_data(files, run.label_set).take(most).as_numpy_iterator():
        path = output / f"{frame['frame_id'].decode()}.png"
        answers = run.predict(frame["image1"], frame["image2"])
        drawing.write_png(path, panels.draw_answers(frame, *answers, run.label_set))
        print(f"drew {path}")


def empty(folder: Path) -> None:
    """Make the folder, without what an earlier run left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def film(folder: Path) -> None:
    """Write the frames of a drive."""
    empty(folder)
    street = farm.load("street")
    for number, frame in enumerate(street.film(height=HEIGHT, width=WIDTH, **FILM)):
        drawing.write_png(folder / f"{number:04d}.png", frame)


def index_of(folder: Path) -> str | None:
    """The text of a conversion's index.json; None where there is none."""
    path = folder / "index.json"
    return path.read_text() if path.is_file() else None


def demo(output: str | None, source: str | None) -> None:
    """Run all steps into the folder `output`."""
    output = Path(output or ("demo/made" if source is None else "demo/yours"))
    recipe = "demo" if source is None else "kitti_sample"
    shown = ("--image1", PAIR[0], "--image2", PAIR[1], "--output", output / "roads.png")
    step(
        "experiments.studies.figure", "--weights", "pretrained", "--name", "KITTI 000003_10", *shown
    )
    # Named by what is in it, so that scenes of an earlier version are never in the way.
    made = output / f"street-{COUNT}x{HEIGHT}x{WIDTH}-v{store.VERSION}"
    if source is None:
        size = ("--height", HEIGHT, "--width", WIDTH)
        step("data_prep.scenes", "--world", "street", "--count", COUNT, *size, "--output", made)
        film(output / "film")
    records_dir, run_dir = output / "records", output / "run"
    held_out = 0.1 if source is None else 0
    convert = ("--output", records_dir, "--val_fraction", held_out, "--overwrite")
    before = index_of(records_dir)
    step("data_prep.kitti", "--source", source or made, *convert)
    if before not in (None, index_of(records_dir)):
        # Other frames than last time: what was learnt from those is of no use.
        shutil.rmtree(run_dir, ignore_errors=True)
    shards = {split: records_dir / f"{split}-*.tfrecord" for split in ("train", "val")}
    scored = shards["val" if source is None else "train"]
    sets = ("--train_records", shards["train"], "--val_records", scored)
    step("flowseg.train", "--flagfile", f"experiments/{recipe}.flags", *sets, "--run_dir", run_dir)
    asked = ("--records", scored, "--metrics_json", output / "metrics.json")
    answers = ("--output", output / "answers", "--seg_ids", "label")
    step("flowseg.evaluate", "--run_dir", run_dir, *asked, *answers)
    files = records.match_files(str(scored))
    draw(run_dir, files, output / "pictures")
    if source is None:
        video = ("--input", output / "film", "--output", output / "video.mp4")
        step("flowseg.visualize", "--run_dir", run_dir, *video)
        demo_page.animate(output / "video.mp4", output / "video.webp")
    served = ("--output", output / "served", "--overwrite")
    step("export.saved_model", "--run_dir", run_dir, *served)
    height, width = read_image(run_dir / runs.SAMPLE["image1"]).shape[:2]
    tflite = ("--output", output / "flowseg.tflite", "--height", height, "--width", width)
    step("export.tflite", "--run_dir", run_dir, *tflite, "--overwrite")
    told = f"{COUNT} made street scenes, a tenth of them held out; the scores are of those."
    if source is not None:
        told = f"Trained on {source} and scored on the same frames: this proves the way alone."
    demo_page.write_page(output, "FlowSeg: classes and motion from two frames", told)
    print(f"\nLook at {output}/index.html, and beside it:")
    print("  roads.png       what the pretrained network says to a real pair")
    print("  pictures/       frames, truth, answers and errors side by side")
    print("  metrics.json    the scores" + (" on held-out frames" if source is None else ""))
    if source is None:
        print("  video.mp4       input, classes and motion of a clip that was never trained on")
    print("  answers/        each frame's seg.png and flow.png, as files for other programs")
    print("  served/, flowseg.tflite: the network for servers and for edge devices")
    print(f"  the training: tensorboard --logdir {output}")


def define_flags():
    """The flags of this command."""
    flags.DEFINE_string("source", None, "Your KITTI folder; default: made streets.")
    flags.DEFINE_string(
        "output", None, "Folder for everything; default: demo/made, or demo/yours with --source."
    )


def main():
    """Run the demo."""
    demo(flags.FLAGS.output, flags.FLAGS.source)


if __name__ == "__main__":
    define_flags()
    entry.run(main)

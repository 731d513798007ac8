"""The doors: each makes valid input, and reads input that may be damaged.

A door's `make(folder)` writes valid files. Its `enter(folder, output)` reads them as the command
does, and may write into `output`. Doors run in processes that share nothing but the files.
"""

import base64
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowseg.cli import entry  # noqa: F401  (quiets TensorFlow's start, so it comes first)

# isort: split
from absl.flags import Error as FlagsError

from data_prep import folder as folder_reader
from data_prep import kitti
from data_prep.doctor.examine import examine
from export import lite_file, saved_model, tflite
from export.serving import batching, rest
from flowseg import predict, runs, show
from flowseg.data import records
from flowseg.data.batches import training_batches
from flowseg.data.labels import CITYSCAPES, load_label_set
from flowseg.media import frames, pairs, video_output
from flowseg.scoring import evaluation, prediction_files
from flowseg.training import checkpoints, feeding
from flowseg.training.progress import Phase, Progress
from tests.conftest import ROOT
from tests.support import kitti_writer, own_folder, trainings
from tests.support.made_files import ids, motion, picture, save
from tests.support.stand_in import stand_in


class Door(NamedTuple):
    """One way into FlowSeg; see the module."""

    make: Callable[[Path], object]
    enter: Callable[[Path, Path], object]


def _make_kitti(folder, count=2):
    kitti_writer.write_kitti(folder, count, height=48, width=64, semantics_only=1)


def _enter_kitti(folder, output):
    kitti.convert([folder], output, processes=1, val_fraction=0.5)


def _make_own_folder(folder):
    own_folder.write_user_folder(folder)
    own_folder.write_classes(folder / "classes.json")


def _enter_own_folder(folder, output):
    labels = str(folder / "classes.json")
    folder_reader.convert([folder], output, label_set=labels, val_fraction=0, processes=1)


def _make_label_set(folder):
    folder.mkdir(parents=True)
    own_folder.write_classes(folder / "classes.json")


def _enter_label_set(folder, output):
    load_label_set(folder / "classes.json")


def _make_records(folder):
    _make_kitti(folder.parent / "source")
    kitti.convert([folder.parent / "source"], folder, val_fraction=0, processes=1)


def _shards(folder):
    return records.match_files(folder / "*.tfrecord")


def _enter_doctor(folder, output):
    examine(_shards(folder), CITYSCAPES, limit=2, processes=1)


def _enter_show(folder, output):
    list(show.record_examples(_shards(folder), CITYSCAPES))


@functools.cache
def _training(config):
    network = runs.load_model(ROOT / "tests/reference/earlier_run/best.keras")
    return trainings.compiled(config, CITYSCAPES, network)


def _enter_training(folder, output):
    config = trainings.small(train_records=(str(folder / "*.tfrecord"),), batch_size=1, height=32)
    sets = feeding.find_sets(config, CITYSCAPES)
    draw = next(iter(feeding.draws_by_phase(config, sets).values()))
    batches = training_batches(draw, CITYSCAPES, height=32, width=96)
    with records.named_errors(sets.files()):
        inputs, targets = next(iter(batches))
    # The network's first step is traced once per process.
    _training(trainings.small(batch_size=1)).train_on_batch(
        inputs, trainings.by_output(inputs, targets)
    )


def _make_predictions(folder):
    _make_records(folder / "records")
    for path in _shards(folder / "records"):
        for _, fields in records.read_shard(path):
            size = fields["height"], fields["width"]
            prediction_files.write_predictions(
                folder / "predictions" / fields["frame_id"].decode(),
                ids(1, [0, 1, 18], *size),
                motion(1, *size),
                CITYSCAPES,
            )
    shutil.rmtree(folder / "source")


def _enter_predictions(folder, output):
    shards = _shards(folder / "records")
    written = prediction_files.open_predictions(folder / "predictions", CITYSCAPES)
    prediction_files.check_complete(written, evaluation.frames_with_truth(shards))
    evaluation.count(shards, CITYSCAPES, written.read_frame)


def _make_frames(folder):
    for name in ("1.png", "2.png", "1.jpg", "2.jpg", "1.bmp", "2.bmp", "1.tiff", "2.tiff"):
        save(folder / name, picture(int(name[0])))


def _enter_frames(folder, output):
    def predicted(image1, image2, scale):
        return np.zeros(image1.shape[:2], np.uint8), np.zeros((*image1.shape[:2], 2), np.float32)

    for kind in ("png", "jpg", "bmp", "tiff"):
        pair = pairs.read_pair(folder / f"1.{kind}", folder / f"2.{kind}")
        predict.predict(stand_in(predicted), *pair, output)


def _make_flagfile(folder):
    folder.mkdir(parents=True)
    shutil.copyfile(ROOT / "experiments/kitti.flags", folder / "a.flags")
    (folder / "b.flags").write_text(
        "--train_records=a,b\n--seed=3\n# text\n--learning_rate=1e-3\n--nosynthetic_flow\n"
    )


def _enter_flagfile(folder, output):
    for name in ("a", "b"):
        try:
            trainings.parsed(f"--flagfile={folder / name}.flags")
        except (FlagsError, UnicodeDecodeError) as error:  # `entry` reports them in one line.
            raise ValueError(str(error)) from error


def _make_run(folder):
    folder.mkdir(parents=True)
    for name in ("best.keras", "label_set.json"):
        shutil.copyfile(ROOT / "tests/reference/earlier_run" / name, folder / name)


def _make_exported_run(folder):
    _make_run(folder)
    for number in (1, 2):
        save(folder / f"sample_image{number}.png", picture(number, 40, 56))


def _enter_run(folder, output):
    runs.load_run(folder)


def _make_checkpoint(folder):
    training = _training(trainings.small(batch_size=1))
    training.optimizer.build(training.trainable_variables)
    for step in (1, 2):
        checkpoints.save(folder, training, Progress(Phase("both"), step=step), keep=2)


def _enter_checkpoint(folder, output):
    state, path = checkpoints.newest(folder)
    if path:
        Progress.from_dict(state)
        checkpoints.load(_training(trainings.small(batch_size=1)), path)


def _make_saved_model(folder):
    _make_exported_run(folder.parent / "run")
    saved_model.export(runs.load_run(folder.parent / "run"), folder)


def _enter_saved_model(folder, output):
    batching.Network(folder)


def _make_lite(folder):
    _make_exported_run(folder.parent / "run")
    tflite.export(runs.load_run(folder.parent / "run"), folder / "a.tflite", 40, 56)


def _enter_lite(folder, output):
    opened = lite_file.read(folder / "a.tflite")
    opened.predict(picture(1, 40, 56), picture(2, 40, 56))


def _make_video(folder):
    for name in ("a.mp4", "b.webm"):
        with video_output.video_writer(folder / name, 10) as write:
            for k in range(4):
                write(picture(k, 32, 48))


def _enter_video(folder, output):
    for name in ("a.mp4", "b.webm"):
        for _ in frames.open_frames(folder / name)[0]:
            pass


def _make_body(folder):
    folder.mkdir(parents=True)
    image = np.zeros((1, 4, 4, 3), int).tolist()
    content = {"signature_name": "predict_labels", "inputs": {"image1": image, "image2": image}}
    (folder / "a.body").write_text(json.dumps(content))
    data = save(folder / "1.png", picture(1, 4, 4)).read_bytes()
    png = {"b64": base64.b64encode(data).decode()}
    (folder / "1.png").unlink()
    content = {"signature_name": "predict_png", "instances": [{"image1_bytes": png}]}
    content["instances"][0]["image2_bytes"] = png
    (folder / "b.body").write_text(json.dumps(content))


def _enter_body(folder, output):
    shape = (None, None, None, 3)
    signatures = {
        "predict_labels": {name: (np.uint8, shape) for name in ("image1", "image2")},
        "predict_png": {name: (object, None) for name in ("image1_bytes", "image2_bytes")},
    }
    for name in ("a", "b"):
        request = rest.read((folder / f"{name}.body").read_bytes(), signatures, 10_000)
        rest.write(request.inputs, request.rows)


DOORS = {
    "kitti": Door(_make_kitti, _enter_kitti),
    "folder": Door(_make_own_folder, _enter_own_folder),
    "label_set": Door(_make_label_set, _enter_label_set),
    "doctor": Door(_make_records, _enter_doctor),
    "show": Door(_make_records, _enter_show),
    "training": Door(_make_records, _enter_training),
    "predictions": Door(_make_predictions, _enter_predictions),
    "predict": Door(_make_frames, _enter_frames),
    "flagfile": Door(_make_flagfile, _enter_flagfile),
    "run": Door(_make_run, _enter_run),
    "checkpoint": Door(_make_checkpoint, _enter_checkpoint),
    "saved_model": Door(_make_saved_model, _enter_saved_model),
    "tflite": Door(_make_lite, _enter_lite),
    "video": Door(_make_video, _enter_video),
    "rest": Door(_make_body, _enter_body),
}
# Doors that take less than a second per case.
CHEAP = ("kitti", "folder", "label_set", "predict", "flagfile", "rest")

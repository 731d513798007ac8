"""`flowseg.evaluate`: its scores, the frames they come from, and its errors."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from flowseg import files, runs
from flowseg.data import decoding, records
from flowseg.data.flow_io import encode_kitti_flow
from flowseg.data.labels import CITYSCAPES
from flowseg.scoring import frame_scores
from flowseg.scoring.evaluation import count_frame, evaluate
from tests.conftest import run_command

ROAD, CAR, BUS = (CITYSCAPES.names.index(name) for name in ("road", "car", "bus"))
FLOW_NAMES = {"flow/aepe", "flow/fl_all", "flow/fl_all_per_image"}


def png(image):
    return cv2.imencode(".png", np.ascontiguousarray(image))[1].tobytes()


def make_record(size, number, labels=None, flow=None, noc=None, pair=True):
    """A serialised frame of the single colour `number`; the second frame has the next colour."""
    fields = {"height": size[0], "width": size[1], "frame_id": f"{number:06d}_10"}
    for key, colour in {"image1": number, "image2": number + 1}.items():
        if key == "image1" or pair:
            fields |= {key: png(np.full((*size, 3), colour, np.uint8)), f"{key}_format": "png"}
    if labels is not None:
        fields |= {"labels": png(np.uint8(labels)), "label_set": "cityscapes"}
    for key, valid in {"flow": flow, "flow_noc": noc}.items():
        if valid is not None:
            truth = np.full((*size, 2), 2.0)
            fields |= {key: encode_kitti_flow(truth, valid), "flow_format": "kitti"}
    return records.make_example(**fields)


def write(path, *examples):
    with tf.io.TFRecordWriter(str(path)) as shard:
        for example in examples:
            shard.write(example)
    return str(path)


def fake_run(flow=(2.0, 2.0), classes=lambda number: ROAD):
    """A run that predicts the same for every pixel and records its calls."""
    run = SimpleNamespace(label_set=CITYSCAPES, calls=[])

    def predict(image1, image2, scale):
        number = int(image1[0, 0, 0])
        run.calls.append((image1.shape, number, int(image2[0, 0, 0]), scale))
        vector = np.asarray(flow(number) if callable(flow) else flow, np.float32)
        logits = np.zeros((*image1.shape[:2], 19), np.float32)
        logits[..., classes(number)] = 1
        return logits, np.broadcast_to(vector, (*image1.shape[:2], 2))

    run.predict_logits = predict
    return run


def tiny_model(seg=1, flow=1.0, classes=19):
    """A network that predicts class `seg` and the flow (`flow`, `flow`) px everywhere."""
    images = {name: keras.Input((None, None, 3), name=name) for name in ("image1", "image2")}
    both = keras.layers.Concatenate()(list(images.values()))
    heads = {
        "seg": (classes, keras.initializers.Constant(np.eye(classes)[seg].tolist())),
        "flow": (2, keras.initializers.Constant(flow)),
    }
    outputs = {
        name: keras.layers.Conv2D(
            width, 1, kernel_initializer="zeros", bias_initializer=bias, name=name
        )(both)
        for name, (width, bias) in heads.items()
    }
    return keras.Model(images, outputs)


def totals(**kinds):
    """The frame counts of `evaluate`: those in `kinds`, and 0 for all others."""
    zeros = dict.fromkeys(("frames", "seg", "flow", "flow_noc", "single"), 0)
    return {**zeros, "foreground": {}, **kinds}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run folder whose network predicts road and (1, 1) px. Tests must not change it."""
    folder = tmp_path_factory.mktemp("run")
    runs.save_model(tiny_model(ROAD), folder / "best.keras")
    files.write_json(folder / "label_set.json", CITYSCAPES._asdict())
    return folder


def test_scores_are_pooled_over_frames_of_different_sizes(tmp_path):
    labels = np.array([[7, 7, 26], [255, 0, 26]])
    first = np.array([[1, 1, 1], [1, 0, 0]])
    files = [
        write(tmp_path / "a", make_record((2, 3), 10, labels, flow=first)),
        write(
            tmp_path / "b",
            make_record((4, 6), 20, np.full((4, 6), 7), np.ones((4, 6)), np.ones((4, 6))),
        ),
    ]
    # Frame 10 has errors of (3, 4), so 5 px, at its 4 valid pixels; frame 20 is correct.
    run = fake_run(
        flow=lambda number: (5, 6) if number == 10 else (2, 2),
        classes=lambda number: CAR if number == 10 else ROAD,
    )
    predictions = []
    scores, frame_counts = evaluate(run, files, each=lambda *frame: predictions.append(frame))
    # Ground truth by row, prediction by column: road (24, 2), car (0, 2); 2 px are void.
    expected = {
        "seg/miou": (100 * 24 / 26 + 100 * 2 / 4) / 2,
        "seg/pixel_accuracy": 100 * 26 / 28,
        "seg/iou/road": 100 * 24 / 26,
        "seg/iou/car": 50.0,
        "flow/aepe": 5 * 4 / 28,
        "flow/fl_all": 100 * 4 / 28,
        "flow/fl_all_per_image": 50.0,
        # The true flow is (2, 2) everywhere.
        "flow/aepe_0_10": 5 * 4 / 28,
        "flow/fl_0_10": 100 * 4 / 28,
        # From the labels: void pixels are neither.
        "flow/aepe_bg": 5 * 2 / 26,
        "flow/fl_bg": 100 * 2 / 26,
        "flow/aepe_fg": 5.0,
        "flow/fl_fg": 100.0,
        "flow/aepe_bg_noc": 0.0,
        "flow/fl_bg_noc": 0.0,
        "seg/category_miou": (100 * 24 / 26 + 100 * 2 / 4) / 2,
        "seg/category_iou/flat": 100 * 24 / 26,
        "seg/category_iou/vehicle": 50.0,
        # Frame 10 has one boundary, between road and car, which is not predicted.
        "seg/boundary_f": 0.0,
        "seg/boundary_f/road": 0.0,
        "seg/boundary_f/car": 0.0,
        # Frame 10 has no ground truth without occlusions, so it is not counted.
        "flow/aepe_noc": 0.0,
        "flow/fl_all_noc": 0.0,
        "flow/fl_all_per_image_noc": 0.0,
    }
    assert scores == pytest.approx(expected, abs=1e-5)
    assert frame_counts == totals(frames=2, seg=2, flow=2, flow_noc=1, foreground={"labels": 2})
    assert run.calls == [((2, 3, 3), 10, 11, 1.0), ((4, 6, 3), 20, 21, 1.0)]
    assert [frame["frame_id"] for frame, *_ in predictions] == [b"000010_10", b"000020_10"]
    shapes = [(logits.shape, flow.shape) for _, logits, flow in predictions]
    assert shapes == [((2, 3, 19), (2, 3, 2)), ((4, 6, 19), (4, 6, 2))]


def test_labels_only_have_no_flow_scores(tmp_path):
    path = write(tmp_path / "a", make_record((3, 4), 7, np.full((3, 4), 28), pair=False))
    run = fake_run(classes=lambda number: BUS)
    scores, frame_counts = evaluate(run, [path])
    # All other classes are in neither ground truth nor prediction: they have no score.
    names = ("miou", "pixel_accuracy", "iou/bus", "category_miou", "category_iou/vehicle")
    assert scores == {f"seg/{name}": 100.0 for name in names}
    assert frame_counts == totals(frames=1, seg=1, single=1)
    assert run.calls == [((3, 4, 3), 7, 7, 1.0)]


def test_flow_only_has_no_class_scores(tmp_path):
    void = make_record((3, 4), 7, np.full((3, 4), 255), flow=np.eye(3, 4))
    path = write(tmp_path / "a", void, make_record((3, 4), 9, flow=np.eye(3, 4)))
    scores, frame_counts = evaluate(fake_run(), [path])
    names = FLOW_NAMES | {"flow/aepe_0_10", "flow/fl_0_10"}
    assert scores == pytest.approx(dict.fromkeys(names, 0.0), abs=1e-5)
    assert frame_counts == totals(frames=2, flow=2)


def test_foreground_comes_from_the_best_available_map():
    ones = np.ones((1, 2), np.int32)
    frame = {"seg": ones * CAR, "objects": ones * [[0, 3]], "things": ones * [[26001, 0]]}
    frame |= {"flow": np.ones((1, 2, 3)), "flow_noc": np.zeros((1, 2, 3))}
    # The first pixel has an error of 4 px, the second none.
    prediction = ones * CAR, np.array([[[5, 1], [1, 1]]]), CITYSCAPES
    for has, known_by, errors in (
        ((True, True), "object map", {"bg": 4, "fg": 0}),
        ((False, True), "instance map", {"bg": 0, "fg": 4}),
        ((False, False), "labels", {"fg": 2}),
    ):
        frame |= dict(zip(("has_objects", "has_things"), has, strict=True))
        counts, source = count_frame(frame, *prediction)
        scores = frame_scores.scores(counts, CITYSCAPES.names)
        assert source == known_by
        assert {
            k: scores[f"flow/aepe_{k}"] for k in ("bg", "fg") if f"flow/{k}" in counts
        } == errors
    frame["seg"] = ones * 255
    counts, source = count_frame(frame, *prediction)
    assert source is None and not {"flow/fg", "flow/bg"} & set(counts)


@pytest.mark.parametrize("what", ["flow", "classes"])
def test_non_finite_pixel_is_reported_with_its_frame(tmp_path, what):
    frame = make_record((3, 4), 7, np.full((3, 4), 7), flow=np.ones((3, 4)))
    run = fake_run()
    predict_logits = run.predict_logits

    def predict(*frames):
        logits, flow = predict_logits(*frames)
        flow = np.array(flow)
        if frames[0][0, 0, 0] == 8:
            {"flow": flow, "classes": logits}[what][1, 2, 0] = np.nan
        return logits, flow

    run.predict_logits = predict
    files = [write(tmp_path / "a", frame)]
    assert evaluate(run, files)[0]["flow/aepe"] == 0
    # Also for frames without ground truth: later predictions could be invalid too.
    files.append(write(tmp_path / "b", make_record((3, 4), 8)))
    message = f"frame 000008_10: the network's output for {what} is NaN or Inf at 1 of 12 pixels"
    with pytest.raises(ValueError, match=message):
        evaluate(run, files)


def test_synthetic_kitti(kitti_records):
    files = records.match_files(f"{kitti_records}/train-*", f"{kitti_records}/val-*")
    scores, frame_counts = evaluate(fake_run(), files)
    expected = totals(frames=5, seg=5, flow=4, flow_noc=4, single=1)
    assert frame_counts == {**expected, "foreground": {"object map": 4}}
    classes = {name for name in scores if name.startswith("seg/iou/")}
    assert "seg/iou/road" in classes and "seg/iou/wall" not in classes
    regions = {name[8:] for name in scores if name.startswith("flow/fl_") and "all" not in name}
    grounds = {"fg", "bg", "fg_noc", "bg_noc"}
    assert {"occluded", "0_10"} | grounds <= regions
    assert regions <= {"occluded", "0_10", "10_40", "40_up", "40_100", "100_up"} | grounds
    drawn = {name for name in scores if name.startswith("seg/boundary_f/")}
    assert "seg/boundary_f/road" in drawn and "seg/boundary_f/wall" not in drawn
    city = {name for name in scores if "category" in name or "iiou" in name}
    assert {"seg/category_miou", "seg/iiou", "seg/category_iiou"} < city
    assert set(scores) == city | classes | drawn | FLOW_NAMES | {
        "seg/miou",
        "seg/pixel_accuracy",
        "seg/boundary_f",
        *(f"{name}_noc" for name in FLOW_NAMES),
        *(f"flow/{kind}_{region}" for kind in ("aepe", "fl") for region in regions),
    }
    assert all(type(score) is float and np.isfinite(score) for score in scores.values())


def test_scale_resizes_frames_and_predictions():
    model, inputs = tiny_model(CAR), []

    def predict(frames):
        inputs.append(
            {key: (frame.shape, frame.dtype, frame.max()) for key, frame in frames.items()}
        )
        return model.predict_on_batch(frames)

    run = runs.Run(SimpleNamespace(predict_on_batch=predict), CITYSCAPES)
    image = np.full((76, 214, 3), 200, np.uint8)
    for size, scale, factors in (
        ((76, 214), 1.0, (1, 1)),
        ((38, 107), 0.5, (2, 2)),
        ((152, 428), 2.0, (0.5, 0.5)),
        # Not an integer number of pixels: each axis has a different factor.
        ((25, 71), 0.33, (214 / 71, 76 / 25)),
    ):
        logits, flow = run.predict_logits(image, image + 1, scale)
        assert inputs[-1] == {
            "image1": ((1, *size, 3), np.float32, 200),
            "image2": ((1, *size, 3), np.float32, 201),
        }
        assert logits.shape == (76, 214, 19) and flow.shape == (76, 214, 2)
        assert logits.dtype == flow.dtype == np.float32
        np.testing.assert_allclose(flow, np.broadcast_to(factors, flow.shape), rtol=1e-6)
        seg, _ = run.predict(image, image, scale)
        assert seg.dtype == np.uint8 and (seg == CAR).all()


def test_half_scale_keeps_positions():
    # The network returns its input: flow = (red, green) of the first frame.
    def predict(frames):
        return {"seg": frames["image1"], "flow": frames["image1"][..., :2]}

    run = runs.Run(SimpleNamespace(predict_on_batch=predict), CITYSCAPES)
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 10:14, 0] = 100
    red, green = np.moveaxis(run.predict_logits(image, image, 0.5)[1], -1, 0)
    centre = (red * np.arange(40)).sum() / red.sum()
    assert centre == pytest.approx(11.5, abs=1e-3) and (green == 0).all()


def test_scale_of_evaluate(tmp_path):
    path = write(tmp_path / "a", make_record((6, 8), 7, flow=np.ones((6, 8))))
    run = runs.Run(tiny_model(), CITYSCAPES)
    assert evaluate(run, [path])[0]["flow/aepe"] == pytest.approx(2**0.5, abs=1e-5)
    assert evaluate(run, [path], scale=0.5)[0]["flow/aepe"] == pytest.approx(0, abs=1e-5)


def test_nothing_to_score(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere-\*: no record files match"):
        records.match_files(f"{tmp_path}/nowhere-*")
    empty = write(tmp_path / "empty.tfrecord")
    with pytest.raises(ValueError, match="empty.tfrecord: the shard has no records"):
        decoding.check_records([empty], CITYSCAPES)
    with pytest.raises(ValueError, match="empty.tfrecord: no records: nothing to score"):
        evaluate(fake_run(), [empty])
    # A frame without ground truth is counted but has no scores.
    scores, frame_counts = evaluate(
        fake_run(), [empty, write(tmp_path / "b", make_record((3, 4), 7))]
    )
    assert scores == {} and frame_counts["frames"] == 1


def test_damaged_shard_is_named(tmp_path):
    frame = make_record((3, 4), 7, np.full((3, 4), 7), pair=False)
    path = Path(write(tmp_path / "bad.tfrecord", frame, frame))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="bad.tfrecord, record 1: damaged"):
        evaluate(fake_run(), [str(path)])


def test_unreadable_run_folders(tmp_path, run_dir):
    with pytest.raises(ValueError, match="gone: no such run folder"):
        runs.load_run(tmp_path / "gone")
    with pytest.raises(ValueError, match="best.keras: missing; .* train first"):
        runs.load_run(tmp_path)
    with pytest.raises(ValueError, match="model.keras: missing"):
        runs.load_run(run_dir, "last")
    content = (run_dir / "best.keras").read_bytes()
    for damaged in (b"", b"no model", content[: len(content) // 2]):
        (tmp_path / "best.keras").write_bytes(damaged)
        with pytest.raises(ValueError, match="best.keras: damaged, or not a Keras file"):
            runs.load_run(tmp_path)
    (tmp_path / "best.keras").write_bytes(content)
    for damaged in (None, "{", '{"names": ["road"]}'):
        if damaged:
            (tmp_path / "label_set.json").write_text(damaged)
        with pytest.raises(ValueError, match="label_set.json: the run's classes cannot be read"):
            runs.load_run(tmp_path)
    assert runs.load_run(run_dir).label_set == CITYSCAPES


def test_metrics_are_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    files.write_json(path, {"flow/aepe": 1.5, "seg/miou": float("nan")})
    assert json.loads(path.read_text()) == {"flow/aepe": 1.5, "seg/miou": None}

    def fail(*_):
        raise OSError(28, "No space left on device")

    for owner, name in ((os, "replace"), (Path, "write_bytes")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(OSError, match="No space"):
                files.write_json(path, {"flow/aepe": 2.5})
        assert json.loads(path.read_text())["flow/aepe"] == 1.5
        assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_command(run_dir, kitti_records, tmp_path):
    output = tmp_path / "new" / "metrics.json"
    command = ["flowseg.evaluate", "--run_dir", run_dir, "--metrics_json", output]
    command.append("--input_scale=0.5")
    globs = f"{kitti_records}/train-*,{kitti_records}/val-*"
    done = run_command(*command, "--records", globs)
    written = json.loads(output.read_text())
    files = records.match_files(*globs.split(","))
    assert written == pytest.approx(evaluate(runs.load_run(run_dir), files, scale=0.5)[0])
    assert all(f"{name} " in done.stdout for name in written)
    assert (
        "5 frames, 5 with labels, 4 with flow ground truth; 1 have no second frame" in done.stdout
    )
    assert [file.name for file in output.parent.iterdir()] == ["metrics.json"]

    (tmp_path / "best.keras").write_bytes(b"no model")
    wrong = run_command("flowseg.evaluate", "--run_dir", tmp_path, "--records", globs, ok=False)
    assert f"{tmp_path}/best.keras: damaged, or not a Keras file" in wrong.stderr

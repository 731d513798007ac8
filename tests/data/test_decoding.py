"""Decoded frames equal what OpenCV and flow_io read from the original files."""

import json

import cv2
import numpy as np
import pytest
import tensorflow as tf

from data_prep import kitti
from flowseg.data import decoding, flow_io, labels, records
from flowseg.data.labels import CITYSCAPES
from tests.data.test_augment import difference
from tests.support.kitti_writer import make_frame


def write_shard(path, *examples):
    """Write one shard of serialised examples; return the list of its files."""
    with tf.io.TFRecordWriter(str(path)) as shard:
        for example in examples:
            shard.write(example)
    return [str(path)]


def read_frames(files, label_set=CITYSCAPES):
    return list(decoding.evaluation_data(files, label_set).as_numpy_iterator())


def read_rgb(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def to_train_ids(ids, label_set=CITYSCAPES):
    """Label ids -> train ids, class by class."""
    train_ids = np.full(ids.shape, 255)
    for train_id, group in enumerate(label_set.ids["cityscapes"]):
        train_ids[np.isin(ids, group)] = train_id
    return train_ids


def assert_warp_helps(frame, flow):
    """Check that the second frame warped by `flow` matches the first better than by other flow."""
    u, v, valid = np.moveaxis(flow, -1, 0)
    known = valid > 0
    error = difference(frame, u, v, known)
    for other in ((0 * u, 0 * v), (-u, -v), (v, u), (u * 1.3, v * 1.3)):
        assert error < 0.9 * difference(frame, *other, known)


@pytest.fixture(scope="module", params=["synthetic", "real"])
def kitti_set(request, tmp_path_factory):
    """(KITTI folder, its record files)."""
    if request.param == "synthetic":
        folder = request.getfixturevalue("kitti_folder")
        output = request.getfixturevalue("kitti_records")
    else:
        folder = request.getfixturevalue("samples") / "kitti"
        output = tmp_path_factory.mktemp("real")
        kitti.convert([folder], output)
    return folder, records.match_files(f"{output}/*.tfrecord")


def test_kitti_frames(kitti_set):
    folder, files = kitti_set
    flow_set, label_set = (
        folder / name / "training" for name in ("data_scene_flow", "data_semantics")
    )
    frames = read_frames(files)
    assert len(frames) == len(list((label_set / "semantic").glob("*.png"))) >= 2
    for frame in frames:
        name = frame["frame_id"].decode() + ".png"
        ids = cv2.imread(str(label_set / "semantic" / name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(frame["image1"], read_rgb(label_set / "image_2" / name))
        np.testing.assert_array_equal(frame["seg"], to_train_ids(ids))
        assert frame["image1"].dtype == np.uint8 and frame["seg"].dtype == np.int32
        assert frame["dataset"] == b"kitti" and len(np.unique(frame["seg"])) > 3
        assert frame["has_image2"] == (flow_set / "flow_occ" / name).is_file()
        if frame["has_image2"]:
            second_path = flow_set / "image_2" / name.replace("_10", "_11")
            np.testing.assert_array_equal(frame["image2"], read_rgb(second_path))
            for key, kind in (("flow", "flow_occ"), ("flow_noc", "flow_noc")):
                expected = flow_io.read_flow(flow_set / kind / name)
                np.testing.assert_array_equal(frame[key], expected)
                assert frame[key].dtype == np.float32 and 0 < expected[..., 2].mean() < 1
            assert_warp_helps(frame, frame["flow_noc"])
        for key, path in (
            ("objects", flow_set / "obj_map" / name),
            ("things", label_set / "instance" / name),
        ):
            # The real samples have neither map.
            assert frame[f"has_{key}"] == path.is_file() and frame[key].dtype == np.int32
            if path.is_file():
                expected = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.int32)
                expected *= (key == "objects") | (expected % 256 > 0)
                np.testing.assert_array_equal(frame[key], expected)
                assert len(np.unique(expected)) > 2
            else:
                assert frame[key].shape == frame["seg"].shape and not frame[key].any()


def test_frame_without_second(kitti_records):
    frames = read_frames(records.match_files(f"{kitti_records}/*.tfrecord"))
    [single] = [frame for frame in frames if not frame["has_image2"]]
    assert single["frame_id"] == b"000004_10" and len(frames) == 5
    np.testing.assert_array_equal(single["image2"], single["image1"])
    assert not single["flow"].any() and not single["flow_noc"].any()
    assert single["flow"].shape == single["flow_noc"].shape == (96, 160, 3)


def ppm(image):
    header = f"P6\n# made by a test\n{image.shape[1]} {image.shape[0]}\n255\n"
    return header.encode() + image.tobytes()


def encoded(image, extension, *options):
    return cv2.imencode(extension, image[..., ::-1], options)[1].tobytes()


def pair_record(image1, image2, form, flow, flow_format, height=96, width=160):
    return records.make_example(
        image1=image1, image2=image2, image1_format=form, image2_format=form,
        flow=flow, flow_format=flow_format, height=height, width=width, frame_id="pair",
    )  # fmt: skip


@pytest.mark.parametrize("form", ["png", "ppm", "jpeg"])
@pytest.mark.parametrize("flow_format", ["kitti", "flo"])
def test_all_formats(form, flow_format, tmp_path):
    synthetic = make_frame(0)
    known = synthetic["visible"]
    coders = {"png": lambda x: encoded(x, ".png"), "ppm": ppm}
    coders["jpeg"] = lambda x: encoded(x, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 90)
    first, second = (coders[form](synthetic[key]) for key in ("image1", "image2"))
    if flow_format == "kitti":
        flow = flow_io.encode_kitti_flow(synthetic["flow"], known)
        expected = flow_io.decode_kitti_flow(flow)
    else:
        # Values above 1e9 mean unknown in .flo, and so does NaN.
        vectors = synthetic["flow"].copy()
        vectors[5, 5:9, 0], known[5, 5:9] = np.nan, False
        flow = flow_io.encode_flo(vectors, known | np.isnan(vectors[..., 0]))
        expected = flow_io.decode_flo(flow)
    record = pair_record(first, second, form, flow, flow_format)
    [frame] = read_frames(write_shard(tmp_path / "a.tfrecord", record))
    np.testing.assert_array_equal(frame["flow"], expected)
    np.testing.assert_array_equal(frame["flow"][..., 2], known)
    assert (frame["flow"][~known] == 0).all() and frame["has_image2"]
    for key, image in (("image1", first), ("image2", second)):
        image = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(frame[key], image)
        if form != "jpeg":
            np.testing.assert_array_equal(image, synthetic[key])
    # Missing fields are masked.
    assert (frame["seg"] == 255).all() and not frame["flow_noc"].any()
    assert_warp_helps(frame, frame["flow"])


def test_grey_frames_become_rgb(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
    png = cv2.imencode(".png", grey)[1].tobytes()
    record = records.make_example(image1=png, image1_format="png", height=6, width=8)
    [frame] = read_frames(write_shard(tmp_path / "grey.tfrecord", record))
    np.testing.assert_array_equal(frame["image1"], np.stack([grey] * 3, -1))


@pytest.mark.parametrize("dataset", ["middlebury", "flyingchairs"])
def test_real_flo_files(dataset, samples, tmp_path):
    if dataset == "middlebury":
        pairs = [
            [*sorted((samples / "middlebury/other-data" / truth.parent.name).iterdir()), truth]
            for truth in sorted((samples / "middlebury/other-gt-flow").glob("*/flow10.flo"))
        ]
    else:
        pairs = [
            [truth.with_name(truth.name.replace("gt.flo", f"img{i}.ppm")) for i in (0, 1)] + [truth]
            for truth in sorted((samples / "flyingchairs").glob("*.flo"))
        ]
    assert len(pairs) == 3
    for first, second, truth in pairs:
        shape = read_rgb(first).shape[:2]
        image1, image2, flow = (path.read_bytes() for path in (first, second, truth))
        record = pair_record(image1, image2, first.suffix[1:], flow, "flo", *shape)
        [frame] = read_frames(write_shard(tmp_path / "real.tfrecord", record))
        np.testing.assert_array_equal(frame["image1"], read_rgb(first))
        np.testing.assert_array_equal(frame["image2"], read_rgb(second))
        np.testing.assert_array_equal(frame["flow"], flow_io.read_flow(truth))
        assert_warp_helps(frame, frame["flow"])


MERGED = {
    "names": ["way", "vehicle"],
    "ids": {"cityscapes": [[7, 8], [26, 27, 28]]},
    "palette": [[128, 64, 128], [0, 0, 142]],
}


def test_user_label_set(kitti_records, kitti_folder, tmp_path):
    path = tmp_path / "merged.json"
    path.write_text(json.dumps(MERGED))
    merged = labels.load_label_set(str(path))
    files = records.match_files(f"{kitti_records}/train-*")
    decoding.check_records(files, merged)
    ids_in_labels = set()
    for frame in read_frames(files, merged):
        name = frame["frame_id"].decode() + ".png"
        semantic = kitti_folder / "data_semantics/training/semantic" / name
        ids = cv2.imread(str(semantic), cv2.IMREAD_UNCHANGED)
        # Road 7 and pavement 8 are way; car 26, truck 27 and bus 28 are vehicle; the rest is void.
        expected = np.select([(ids == 7) | (ids == 8), (ids >= 26) & (ids <= 28)], [0, 1], 255)
        np.testing.assert_array_equal(frame["seg"], expected)
        ids_in_labels |= set(np.unique(ids))
    assert {7, 8, 26, 11, 21} <= ids_in_labels


def test_labels_without_mapping(kitti_records, kitti_folder, tmp_path):
    groups = MERGED["ids"]["cityscapes"]
    foreign = labels.from_dict({**MERGED, "name": "mine", "ids": {"other": groups}})
    files = records.match_files(f"{kitti_records}/train-*")
    match = (
        r"train-.*tfrecord: label set 'mine' has no mapping for .*'cityscapes'.*another label_set"
    )
    with pytest.raises(ValueError, match=match):
        decoding.check_records(files, foreign)
    # If only a later record has labels, the pipeline raises the error.
    png = encoded(np.zeros((4, 4, 3), np.uint8), ".png")
    frame = {"image1": png, "image1_format": "png", "height": 4, "width": 4}
    label_png = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    labelled = frame | {"labels": label_png, "label_set": "cityscapes", "frame_id": "no7"}
    examples = [records.make_example(**fields) for fields in (frame, labelled)]
    files = write_shard(tmp_path / "late.tfrecord", *examples)
    decoding.check_records(files, foreign)
    with pytest.raises(tf.errors.InvalidArgumentError, match="no7: .*cityscapes.*no mapping.*mine"):
        read_frames(files, foreign)


def test_mixed_numberings(tmp_path):
    ids = {"cityscapes": [[7, 8], [26, 27, 28]], "other": [[1], []]}
    mixed = labels.from_dict({**MERGED, "name": "mixed", "ids": ids})
    png = encoded(np.zeros((1, 4, 3), np.uint8), ".png")
    label_png = cv2.imencode(".png", np.uint8([[1, 7, 8, 26]]))[1].tobytes()
    frame = {"image1": png, "image1_format": "png", "height": 1, "width": 4, "labels": label_png}
    examples = [records.make_example(**frame, label_set=name) for name in ids]
    cityscapes_frame, other_frame = read_frames(
        write_shard(tmp_path / "two.tfrecord", *examples), mixed
    )
    assert cityscapes_frame["seg"].tolist() == [[255, 0, 0, 1]]
    assert other_frame["seg"].tolist() == [[0, 255, 255, 255]]

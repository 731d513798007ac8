"""Tests of the doctor on real frames: no findings, and planted faults are found."""

import cv2
import numpy as np
import pytest

from data_prep.conversion.frames import Frame, read_frame
from data_prep.doctor import classes, duplicates, facts, flow, read, warp
from data_prep.doctor.examine import examine
from flowseg.data import images
from flowseg.data.labels import CAMVID, CITYSCAPES, train_id_table
from tests.support.doctor_sets import encode

SETS = ("kitti", "middlebury", "flyingchairs")


def frames_of(samples, name):
    """Yield the frames of a sample set as the converters find them."""
    if name == "kitti":
        flows, labels = (
            samples / "kitti" / part / "training" for part in ("data_scene_flow", "data_semantics")
        )
        for path in sorted((flows / "flow_occ").glob("*.png")):
            files = {field: flows / field / path.name for field in ("flow_occ", "flow_noc")}
            yield Frame(
                path.stem,
                {
                    "image1": flows / "image_2" / path.name,
                    "image2": flows / "image_2" / path.name.replace("_10", "_11"),
                    "flow": files["flow_occ"],
                    "flow_noc": files["flow_noc"],
                    "labels": labels / "semantic" / path.name,
                },
                label_set="cityscapes",
            )
    elif name == "middlebury":
        for path in sorted((samples / name / "other-gt-flow").glob("*/flow10.flo")):
            folder = samples / name / "other-data" / path.parent.name
            images = {f"image{k}": folder / f"frame{k + 9}.png" for k in (1, 2)}
            yield Frame(path.parent.name, {**images, "flow": path})
    else:
        for path in sorted((samples / name).glob("*-gt.flo")):
            images = {
                f"image{k}": path.with_name(path.name.replace("gt.flo", f"img{k - 1}.ppm"))
                for k in (1, 2)
            }
            yield Frame(path.stem, {**images, "flow": path})


def fields_of(samples, name):
    return [{**read_frame(frame)[0], "dataset": name} for frame in frames_of(samples, name)]


@pytest.fixture(scope="module")
def decoded(samples):
    """Return {set name: decoded pairs}."""
    return {name: [read.decode(fields)[0] for fields in fields_of(samples, name)] for name in SETS}


def findings_of(frames):
    """Return (level, name) of the flow findings of decoded pairs, and the probes."""
    pair_facts = [facts.Facts("x", k, str(k), "set", "train", 1, 1, ()) for k in range(len(frames))]
    probes = [(pair, warp.probe(frame)) for pair, frame in zip(pair_facts, frames, strict=True)]
    pairs = list(zip(pair_facts, frames, strict=True))
    partners = {
        id(pair): flow.find_partner(frame, [other for other in pairs if other[0] is not pair])
        for pair, frame in pairs
    }
    return [(f.level, f.name) for f in flow.check("set", probes, partners)], probes


def test_real_pairs_are_clean(samples, tmp_path):
    import tensorflow as tf

    from flowseg.data import records

    path = str(tmp_path / "train-00000-of-00001.tfrecord")
    with tf.io.TFRecordWriter(path) as shard:
        for name in SETS:
            for fields in fields_of(samples, name):
                shard.write(records.make_example(**fields))
    diagnosis = examine([path], CITYSCAPES)
    assert [f.line() for f in diagnosis.findings] == []
    for name, pairs in (("kitti", 2), ("middlebury", 3), ("flyingchairs", 3)):
        numbers = {
            key.split("/")[-1]: value
            for key, value in diagnosis.numbers.items()
            if key.startswith(f"{name}/warp/")
        }
        assert numbers["fits_pairs"] == pairs
        assert numbers["flow"] < 0.4 * numbers["zero"]
    assert diagnosis.numbers["kitti/train/flow/mean"] == pytest.approx(13.65, abs=0.05)
    assert diagnosis.numbers["kitti/train/class/building"] == pytest.approx(30.6, abs=0.2)


@pytest.mark.parametrize(
    ("names", "swapped", "signs", "fault"),
    [
        (SETS, True, (1, 1), "axes"),
        (SETS, False, (1, -1), "sign-v"),
        (SETS, False, (2, 2), "scale"),
        (SETS[:1], False, (-1, -1), "signs"),
        (SETS[:1], False, (-1, 1), "sign-u"),
        (SETS[:1], False, (0.05, 0.05), "scale"),
        (SETS[:1], False, (1 / 64, 1 / 64), "scale"),
        (SETS[:1], False, (64, 64), "scale"),
    ],
)
def test_planted_faults_in_real_pairs(decoded, names, swapped, signs, fault):
    for name in names:
        frames = []
        for frame in decoded[name]:
            wrong = frame["flow"].copy()
            vectors = wrong[..., 1::-1] if swapped else wrong[..., :2]
            wrong[..., :2] = vectors * np.float32(signs)
            frames.append({**frame, "flow": wrong})
        findings, probes = findings_of(frames)
        assert findings == [("error", f"flow-{fault}")], name
        if fault == "scale":
            scales = [probe.scale for _, probe in probes if probe.verdict == "scale"]
            np.testing.assert_allclose(scales, 1 / signs[0], rtol=0.02)


@pytest.mark.parametrize("fields", [("image2",), ("flow", "flow_noc")])
def test_shifted_real_pairs(decoded, fields):
    """Only for sets whose pairs have the same size."""
    for name in ("kitti", "flyingchairs"):
        frames = decoded[name]
        wrong = [
            {**frame, **{field: frames[k - 1][field] for field in fields if field in frame}}
            for k, frame in enumerate(frames)
        ]
        findings, _ = findings_of(wrong)
        assert findings == [("error", "flow-shifted")], name


def test_video_successors_are_no_near_duplicates(samples):
    video = sorted((samples / "camvid" / "val").glob("*.png"))[:16]
    video += sorted((samples / "davis/JPEGImages/480p/dance-twirl").glob("*.jpg"))[50:66]
    first = cv2.imread(str(video[0]))
    resaved = [cv2.imencode(".jpg", first, [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes()]
    video_facts = []
    for k, data in enumerate([path.read_bytes() for path in video] + resaved):
        image = images.decode(data, "frame")
        luma = warp.luma(np.ascontiguousarray(image))
        image_hash, thumb = facts.difference_hash(luma), facts.thumbnail(luma)
        video_facts.append(
            facts.Facts("x", k, str(k), "s", "train", 1, 1, (), image_hash=image_hash, thumb=thumb)
        )
    # Only the resaved image.
    [group] = duplicates.near_groups(video_facts)
    assert [frame.index for frame in group] == [0, len(video)]


@pytest.mark.parametrize(("name", "label_set"), [("kitti", CITYSCAPES), ("camvid", CAMVID)])
def test_label_alignment_on_real_images(samples, name, label_set):
    folder = samples / ("camvid" if name == "camvid" else "kitti_semantics_extra/training")
    subfolder, labels = ("train", "trainannot") if name == "camvid" else ("image_2", "semantic")
    paths = sorted((folder / labels).glob("*.png"))[::3][:6]
    table = train_id_table(label_set, next(iter(label_set.ids)))
    images_rgb = [
        cv2.imread(str(folder / subfolder / path.name))[..., ::-1].copy() for path in paths
    ]
    maps = [table[cv2.imread(str(path), cv2.IMREAD_UNCHANGED)] for path in paths]

    def findings(change):
        fits = [classes.border_fit(*pair) for pair in zip(images_rgb, change(maps), strict=True)]
        return [f.name for f in classes.check_borders("set", fits, paths)]

    assert findings(lambda maps: maps) == []
    assert findings(lambda maps: [np.roll(m, (0, 6), (0, 1)) for m in maps]) == ["labels-shifted"]
    assert findings(lambda maps: [m[:, ::-1] for m in maps]) == ["labels-elsewhere"]


def test_encoding_helper_is_lossless(decoded):
    image = decoded["middlebury"][0]["image1"]
    for form in ("png", "ppm"):
        decoded_image = images.decode(encode(image, form), form)
        np.testing.assert_array_equal(decoded_image, image)

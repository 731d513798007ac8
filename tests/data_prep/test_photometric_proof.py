"""Every reader of flow passes the doctor's warp check, and mixed-up encodings are named."""

import functools

import numpy as np
import pytest

from data_prep import flyingthings3d, hd1k, kitti, kitti2012, sintel, vkitti2
from data_prep.doctor import read, warp
from data_prep.doctor.examine import examine
from data_prep.scenes import drives, street
from flowseg.data import records
from flowseg.data.flow_io import decode_kitti_flow
from flowseg.data.labels import CITYSCAPES
from tests.support import flow_sets as sets
from tests.support.made_files import load

CLONE = ("Scene01", "clone", "Camera_0")


@functools.cache
def rendered():
    """Three pairs of the street world, re-encoded by each writer: images, flow, known pixels."""
    pairs = [street.make_pair(3, k, 128, 416, effects=False) for k in (0, 2, 5)]
    return [([pair.image1, pair.image2], pair.flow, pair.visible) for pair in pairs]


def real(samples):
    """The real pairs of KITTI 2015."""
    folder = samples / "kitti/data_scene_flow/training"
    for path in sorted((folder / "flow_noc").glob("*.png")):
        flow = decode_kitti_flow(path.read_bytes())
        images = [load(folder / "image_2" / path.name.replace("_10", f"_1{n}")) for n in (0, 1)]
        yield images, flow[..., :2], flow[..., 2] > 0


def dense(samples):
    """Real pairs with flow almost everywhere: those of Sintel."""
    folder = samples / "sintel/training"
    for path in sorted((folder / "flow").glob("*/frame_0002.flo")):
        images = [load(folder / "clean" / path.parent.name / f"frame_000{n}.png") for n in (2, 3)]
        flow = np.fromfile(path, "<f4")[3:].reshape(*images[0].shape[:2], 2)
        yield images, flow, np.ones(flow.shape[:2], bool)


def write_vkitti2(root, k, images, flow, known):
    sets.write_vkitti2(root, (f"Scene{k + 1:02d}", "clone", "Camera_0"), images, [(flow, known)])


def write_street(root, k, images, flow, known):
    video = (f"Scene{k + 1:02d}", "clone", "Camera_0")
    sets.write_street_video(root, video, images, [(flow, known)])


def write_hd1k(root, k, images, flow, known):
    sets.write_hd1k(root, k, images, [(flow, known)])


def write_things(root, k, images, flow, known):
    unknown = np.where(known[..., None], flow, np.nan)
    sets.write_things(root, f"TRAIN/A/{k:04d}", images, [unknown])


def write_subset(root, k, images, flow, known):
    unknown = np.where(known[..., None], flow, 1e10)
    sets.write_things_subset(root, "train", images, [unknown], first=10 * k)


READERS = {
    "vkitti2": (vkitti2, write_vkitti2),
    "street_video": (vkitti2, write_street),
    "hd1k": (hd1k, write_hd1k),
    "flyingthings3d": (flyingthings3d, write_things),
    "subset": (flyingthings3d, write_subset),
}


def diagnose(reader, source, output):
    options = {} if reader is flyingthings3d else {"val_fraction": 0}
    index = reader.convert([source], output, processes=1, **options)
    diagnosis = examine(records.match_files(f"{output}/*.tfrecord"), CITYSCAPES, processes=1)
    numbers = {
        key.split("/")[-1]: value
        for key, value in diagnosis.numbers.items()
        if key.startswith(f"{index['dataset']}/warp/")
    }
    return [f.name for f in diagnosis.findings if f.name.startswith("flow")], numbers


@pytest.mark.parametrize("name", READERS)
def test_rendered_pairs_fit(tmp_path, name):
    reader, write = READERS[name]
    for k, pair in enumerate(rendered()):
        write(tmp_path / "in", k, *pair)
    findings, numbers = diagnose(reader, tmp_path / "in", tmp_path / "out")
    assert findings == [] and numbers["fits_pairs"] == 3
    assert numbers["flow"] < 0.3 * numbers["zero"]


@pytest.mark.parametrize("name", READERS)
def test_real_pairs_re_encoded_fit(samples, tmp_path, name):
    reader, write = READERS[name]
    for k, pair in enumerate(real(samples)):
        write(tmp_path / "in", k, *pair)
    findings, numbers = diagnose(reader, tmp_path / "in", tmp_path / "out")
    assert findings == [] and numbers["fits_pairs"] == 2


@pytest.mark.parametrize(
    ("reader", "folder", "pairs"),
    [(kitti2012, "kitti2012", 3), (sintel, "sintel", 4), (kitti, "kitti", 2)],
)
def test_real_samples_fit(samples, tmp_path, reader, folder, pairs):
    findings, numbers = diagnose(reader, samples / folder, tmp_path)
    assert findings == [] and numbers["fits_pairs"] == pairs
    assert numbers["flow"] < 0.5 * numbers["zero"]


def top_down_pfm(flow, known):
    return sets.pfm(np.where(known[..., None], flow, np.nan)[::-1])


def swapped_pfm(flow, known):
    return sets.pfm(np.where(known[..., None], flow, np.nan)[..., ::-1])


PFM = "optical_flow/TRAIN/A/{k:04d}/into_future/left/*.pfm"
PNG = "Scene{k:02d}/clone/frames/forwardFlow/Camera_0/*.png"
FAULTS = {
    "vkitti2-as-kitti": ("street_video", sets.vkitti2_png),
    "kitti-as-vkitti2": ("vkitti2", sets.kitti_png),
    "upside-down": ("flyingthings3d", top_down_pfm),
    "axes": ("flyingthings3d", swapped_pfm),
}


def plant(tmp_path, fault, pairs):
    name, encode = FAULTS[fault]
    reader, write = READERS[name]
    for k, pair in enumerate(pairs):
        write(tmp_path / "in", k, *pair)
        pattern = PFM.format(k=k) if name == "flyingthings3d" else PNG.format(k=k + 1)
        [path] = (tmp_path / "in").glob(pattern)
        path.write_bytes(encode(*pair[1:]))
    return diagnose(reader, tmp_path / "in", tmp_path / "out")[0]


@pytest.mark.parametrize("fault", FAULTS)
def test_misread_rendered_pairs_are_named(tmp_path, fault):
    assert plant(tmp_path, fault, rendered()) == [f"flow-{fault}"]


@pytest.mark.parametrize("fault", FAULTS)
def test_misread_real_pairs_are_named(samples, tmp_path, fault):
    # KITTI's flow is known in few rows whose mirrored rows are known, too. PFM files are dense.
    pairs = dense(samples) if fault == "upside-down" else real(samples)
    assert plant(tmp_path, fault, pairs) == [f"flow-{fault}"]


def video_probe(fields):
    """Probe the backward flow of a record: from its second frame to its first."""
    frame, problems = read.decode(fields)
    assert not problems
    swapped = {"image1": frame["image2"], "image2": frame["image1"]}
    return warp.probe(frame), warp.probe({**swapped, "flow": frame["backward_flow"]})


def test_rendered_street_video_fits_in_both_directions(tmp_path):
    drives.write_drives(tmp_path / "in", 1, 4, height=96, width=312, effects=False, processes=1)
    index = vkitti2.convert([tmp_path / "in"], tmp_path / "out", val_fraction=0)
    truth = {"image2": 3, "flow": 3, "backward_flow": 3, "occlusion": 3, "labels": 4}
    assert index["truth"]["train"] | truth == index["truth"]["train"]
    [path] = records.match_files(f"{tmp_path}/out/*.tfrecord")
    pairs = [fields for _, fields in read.read_records(path) if fields["image2"]]
    assert [probe.verdict for fields in pairs for probe in video_probe(fields)] == ["fits"] * 6


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"hd1k"}))
def test_flow_of_both_directions_fits(tmp_path, name):
    images, flow, backward = sets.moving_texture()
    root, masked = tmp_path / "in", (sets.with_masks(flow), sets.with_masks(backward))
    if name == "vkitti2":
        sets.write_vkitti2(root, CLONE, images, *masked)
    elif name == "street_video":
        sets.write_street_video(root, CLONE, images, *masked)
    elif name == "subset":
        sets.write_things_subset(root, "train", images, flow, backward)
    else:
        sets.write_things(root, "TRAIN/A/0000", images, flow, backward)
    reader = READERS[name][0]
    options = {} if reader is flyingthings3d else {"val_fraction": 0}
    reader.convert([root], tmp_path / "out", **options)
    [path] = records.match_files(f"{tmp_path}/out/*.tfrecord")
    pairs = [fields for _, fields in read.read_records(path) if fields["image2"]]
    assert len(pairs) == 2
    for fields in pairs:
        for probe in video_probe(fields):
            assert probe.verdict == "fits" and probe.mismatch < 0.2

"""Tests of the Virtual KITTI 2 converter, which also reads synthetic street videos."""

import json
import shutil

import cv2
import numpy as np
import pytest

from data_prep import vkitti2
from flowseg.data import records
from flowseg.data.flow_io import decode_flow
from flowseg.data.labels import CITYSCAPES, VKITTI2, train_id_table
from tests.conftest import run_command
from tests.support import flow_sets as sets
from tests.support.made_files import HEIGHT, WIDTH, ids, load, motion, picture, save

CLONE = ("Scene01", "clone", "Camera_0")


def images_of(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def write_video(root, video=CLONE, seed=0, count=3):
    """Write a video with all ground truth; return its frames' folder, classes and cars."""
    images, flow, backward = sets.noise_video(seed, count)
    frames = sets.write_vkitti2(
        root, video, images, sets.with_masks(flow), sets.with_masks(backward)
    )
    truth = [sets.save_classes(frames, video[2], n, 10 * seed + n) for n in range(count)]
    return frames, truth


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "vkitti2"
    write_video(root)
    return root


def assert_refused(source, tmp_path, match, **options):
    with pytest.raises(ValueError, match=match):
        vkitti2.convert([source], tmp_path / "refused", **options)
    assert not list((tmp_path / "refused").glob("[!.]*"))


def convert(source, tmp_path, **options):
    return vkitti2.convert([source], tmp_path / "out", val_fraction=0, **options)


def test_every_frame_has_its_own_truth(tmp_path):
    known = np.ones((HEIGHT, WIDTH), bool)
    known[:9] = False  # the sky
    images, flow, backward = sets.noise_video(0)
    frames = sets.write_vkitti2(
        tmp_path / "in", CLONE, images, [(f, known) for f in flow], [(f, known) for f in backward]
    )
    truth = [sets.save_classes(frames, "Camera_0", n, n) for n in range(3)]
    index = convert(tmp_path / "in", tmp_path)
    assert index["records"]["train"] == 3 and index["videos"] == {"train": 1}
    assert index["label_sets"] == ["vkitti2"]
    all_fields = sets.fields_of(tmp_path / "out")
    assert sorted(all_fields) == [f"Scene01/clone/Camera_0/{n:05d}" for n in range(3)]
    step = 2 / 65535 * (WIDTH - 1)
    for n, (fields, (classes, cars)) in enumerate(
        zip((all_fields[name] for name in sorted(all_fields)), truth, strict=True)
    ):
        assert fields["video"] == b"Scene01/clone/Camera_0" and fields["frame_index"] == n
        assert fields["dataset"] == b"vkitti2" and fields["label_set"] == b"vkitti2"
        decoded = {name: cv2.imdecode(np.frombuffer(fields[name], np.uint8), -1)
                   for name in ("labels", "objects")}  # fmt: skip
        assert (decoded["labels"] == classes).all() and (decoded["objects"] == cars).all()
        path = frames / f"rgb/Camera_0/rgb_{n:05d}.jpg"
        assert fields["image1"] == path.read_bytes()
        if n == 2:
            assert not any(fields[name] for name in ("image2", "flow", "backward_flow"))
            continue
        assert fields["image2"] == path.with_name(f"rgb_{n + 1:05d}.jpg").read_bytes()
        assert fields["next_index"] == n + 1 and fields["flow_format"] == b"vkitti2"
        # The backward flow leads from frame n + 1 back to frame n.
        for name, expected in (("flow", flow[n]), ("backward_flow", backward[n])):
            vectors = decode_flow(fields[name], "vkitti2")
            assert (vectors[..., 2] == known).all()
            assert np.abs(vectors[..., :2] - expected)[known].max() < step


def test_labels_in_the_classes_of_both_label_sets(folder, tmp_path):
    convert(folder, tmp_path)
    data = sets.fields_of(tmp_path / "out")["Scene01/clone/Camera_0/00000"]["labels"]
    ids = cv2.imdecode(np.frombuffer(data, np.uint8), -1)
    own, mapped = (train_id_table(names, "vkitti2")[ids] for names in (VKITTI2, CITYSCAPES))
    assert (own == np.where(ids, ids - 1, 255)).all()
    names = [*CITYSCAPES.names, *["void"] * 237]
    expected = {
        "terrain": "terrain", "sky": "sky", "tree": "vegetation", "vegetation": "vegetation",
        "building": "building", "road": "road", "guard rail": "void",
        "traffic sign": "traffic sign", "traffic light": "traffic light", "pole": "pole",
        "misc": "void", "truck": "truck", "car": "car", "van": "car",
    }  # fmt: skip
    for train_id, class_name in enumerate(VKITTI2.names):
        [class_id] = set(mapped[own == train_id].tolist())
        assert names[class_id] == expected[class_name], class_name
    assert set(mapped[own == 255].tolist()) == {255}


def test_published_colours_and_order():
    names = [name.replace(" ", "") for name in VKITTI2.names]
    table = dict(zip(names, VKITTI2.palette, strict=True))
    published = {name.lower(): colour for name, colour in sets.VKITTI2_COLOURS.items()}
    assert published.pop("undefined") == (0, 0, 0)
    assert list(table.items()) == list(published.items())


def test_unknown_colour_is_refused(folder, tmp_path):
    path = folder / "Scene01/clone/frames/classSegmentation/Camera_0/classgt_00001.png"
    colours = load(path).copy()
    colours[0, 0] = 1, 2, 3
    save(path, colours)
    assert_refused(folder, tmp_path, r"classgt_00001.png: the colour \(1, 2, 3\), at 1 pixels")


def test_choice_of_scenes_variations_and_cameras(tmp_path):
    root = tmp_path / "in"
    for k, video in enumerate(
        [("Scene01", "clone", "Camera_0"), ("Scene01", "clone", "Camera_1"),
         ("Scene01", "fog", "Camera_0"), ("Scene20", "clone", "Camera_0")]
    ):  # fmt: skip
        write_video(root, video, seed=k, count=2)

    def videos_of(**options):
        return sorted({frame.video for frame in vkitti2.find_frames([root], **options)[0]})

    assert videos_of() == ["Scene01/clone/Camera_0", "Scene20/clone/Camera_0"]
    only_01 = {"scenes": ["1"]}
    assert videos_of(**only_01, variations=["fog", "clone"]) == [
        "Scene01/clone/Camera_0",
        "Scene01/fog/Camera_0",
    ]
    assert videos_of(scenes=["Scene01"], cameras=["1"]) == ["Scene01/clone/Camera_1"]
    for options, message in (
        ({"scenes": ["02"]}, "vkitti2|in: scenes=02: not in this folder, which has 01, 20"),
        ({"variations": ["rain"]}, "Scene01: variations=rain: not in .* has clone, fog"),
        ({"variations": ["fog"]}, "Scene20: variations=fog: not in .* has clone$"),
        ({"cameras": ["2"]}, "Scene01/clone: cameras=2: not in .* has 0, 1"),
        ({"cameras": []}, "cameras is empty: choose from 0, 1"),
    ):
        with pytest.raises(ValueError, match=message):
            vkitti2.find_frames([root], **options)


def test_variations_of_a_scene_stay_in_one_split(tmp_path):
    for k, scene in enumerate(("Scene01", "Scene02", "Scene06", "Scene18")):
        for variation in ("clone", "fog"):
            write_video(tmp_path / "in", (scene, variation, "Camera_0"), seed=k, count=2)
    options = {"variations": ["clone", "fog"], "val_fraction": 0.5}
    vkitti2.convert([tmp_path / "in"], tmp_path / "out", **options)
    scenes = {
        split: {
            name[:7] for name in sets.fields_of(tmp_path / "out").keys() & ids_of(tmp_path, split)
        }
        for split in ("train", "val")
    }
    assert scenes["train"] and scenes["val"] and not scenes["train"] & scenes["val"]


def ids_of(tmp_path, split):
    paths = (tmp_path / "out").glob(f"{split}-*.tfrecord")
    return {f["frame_id"].decode() for path in paths for _, f in records.read_shard(path)}


def test_few_scenes_warn_of_an_empty_split(folder, tmp_path, capsys):
    vkitti2.convert([folder], tmp_path / "out", val_fraction=0.01)
    assert "val (the frames of each of 1 scenes stay together)" in capsys.readouterr().err


def test_missing_ground_truth_is_counted_in_one_line(folder, tmp_path, capsys):
    frames = folder / "Scene01/clone/frames"
    (frames / "forwardFlow/Camera_0/flow_00001.png").unlink()
    (frames / "classSegmentation/Camera_0/classgt_00000.png").unlink()
    index = convert(folder, tmp_path)
    line = f"{folder}: 1 of 2 pairs have no flow file; 1 of 3 frames have no label file"
    assert capsys.readouterr().out.splitlines()[0] == line
    assert (
        index["truth"]["train"] | {"image2": 2, "flow": 1, "labels": 2, "backward_flow": 2}
        == (index["truth"]["train"])
    )


def test_images_alone_are_refused(folder, tmp_path):
    for name in ("forwardFlow", "backwardFlow", "classSegmentation"):
        shutil.rmtree(folder / "Scene01/clone/frames" / name)
    assert_refused(folder, tmp_path, "these videos have neither flow nor labels")


def test_missing_frame_inside_a_video(tmp_path, capsys):
    write_video(tmp_path / "in", count=5)
    path = tmp_path / "in/Scene01/clone/frames/rgb/Camera_0/rgb_00002.jpg"
    path.unlink()
    assert_refused(tmp_path / "in", tmp_path, "rgb_00002.jpg: missing .is the data set unpacked")
    index = convert(tmp_path / "in", tmp_path, on_error="skip")
    # Frame 1 becomes a still with its labels.
    assert [item["frame_id"] for item in index["left_out"]] == ["Scene01/clone/Camera_0/00002"]
    truth = {"image2": 2, "flow": 2, "labels": 4}
    assert index["truth"]["train"] | truth == index["truth"]["train"]
    assert "2 flow files are not read, because the other frame" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("rgb/Camera_0/rgb_00001.jpg", picture(0, 20, 32), "is 20x32, but"),
        ("forwardFlow/Camera_0/flow_00001.png", sets.vkitti2_png(motion(0)[1:]), "is 23x32, but"),
        ("forwardFlow/Camera_0/flow_00001.png", sets.vkitti2_png(motion(0))[:-20], "truncated PNG"),
        ("forwardFlow/Camera_0/flow_00001.png", picture(0), "a Virtual KITTI 2 flow PNG has 16"),
        ("backwardFlow/Camera_0/backwardFlow_00001.png", picture(0)[1:], "flow PNG has 16 bits"),
        ("instanceSegmentation/Camera_0/instancegt_00000.png", b"", "not a PNG"),
    ],
)
def test_bad_files(folder, tmp_path, file, content, match):
    save(folder / "Scene01/clone/frames" / file, content)
    assert_refused(folder, tmp_path, match)
    index = convert(folder, tmp_path, on_error="skip")
    assert 1 <= index["records"]["train"] < 3 and index["left_out"]


def test_archives_unpacked_side_by_side(folder, tmp_path):
    expected = vkitti2.find_frames([folder])[0]
    for name in ("rgb", "forwardFlow", "backwardFlow", "classSegmentation", "instanceSegmentation"):
        place = f"Scene01/clone/frames/{name}"
        shutil.copytree(folder / place, tmp_path / "apart" / f"vkitti_2.0.3_{name}" / place)
    frames = vkitti2.find_frames([tmp_path / "apart"])[0]
    assert [frame.frame_id for frame in frames] == [frame.frame_id for frame in expected]
    assert [frame.files.keys() for frame in frames] == [frame.files.keys() for frame in expected]


def test_names_of_another_set_are_refused(folder, tmp_path):
    save(folder / "Scene01/clone/frames/forwardFlow/Camera_0/000000_10.png", picture(0))
    assert_refused(folder, tmp_path, r"000000_10.png: unexpected file name .expected flow_NUMBER")


@pytest.mark.parametrize("missing", ["nowhere", "Scene01"])
def test_other_folders_are_refused(folder, tmp_path, missing):
    message = "no such folder" if missing == "nowhere" else "no Virtual KITTI 2 here"
    assert_refused(folder / missing, tmp_path, f"{missing}: {message}")


def test_colours_of_the_scene_are_compared(folder, tmp_path):
    lines = [f"{name} {r} {g} {b}" for name, (r, g, b) in sets.VKITTI2_COLOURS.items()]
    text = "\n".join(["Category r g b", *lines, "Car:3 10 20 30", ""])
    path = save(folder / "Scene01/clone/colors.txt", text.encode())
    assert vkitti2.find_frames([folder])[0]
    path.write_text(text.replace("Car 255 127 80", "Car 255 127 81"))
    with pytest.raises(ValueError, match="Car has the colour 255 127 81, but Virtual KITTI 2's"):
        vkitti2.find_frames([folder])


def write_street(root, seed=3):
    """Write a street video with labels, instances and occlusion; return its arrays."""
    images, flow, backward = sets.noise_video(seed)
    video = ("Scene0000", "clone", "Camera_0")
    frames = sets.write_street_video(
        root, video, images, sets.with_masks(flow), sets.with_masks(backward)
    )
    maps = [ids(n, [7, 11, 26, 0]) for n in range(3)]
    for n, labels in enumerate(maps):
        save(frames / f"classSegmentation/Camera_0/classgt_{n:05d}.png", labels)
        instances = np.uint16(labels) * 1000 + 5
        save(frames / f"instanceSegmentation/Camera_0/instancegt_{n:05d}.png", instances)
        if n < 2:
            occluded = np.uint8(255 * (labels == 26))
            save(frames / f"occlusion/Camera_0/occlusion_{n:05d}.png", occluded)
    return images, flow, backward, maps


def test_street_video_has_kittis_flow_and_cityscapes_labels(tmp_path):
    images, flow, backward, maps = write_street(tmp_path / "in")
    index = convert(tmp_path / "in", tmp_path, scenes=["0"])
    assert index["dataset"] == "street_video" and index["label_sets"] == ["cityscapes"]
    all_fields = sets.fields_of(tmp_path / "out")
    for n, name in enumerate(sorted(all_fields)):
        fields = all_fields[name]
        assert (images_of(fields["image1"]) == images[n]).all()
        assert (cv2.imdecode(np.frombuffer(fields["labels"], np.uint8), -1) == maps[n]).all()
        assert fields["label_set"] == b"cityscapes" and fields["instances"]
        assert fields["instances_format"] == b"cityscapes"
        if n < 2:
            assert (decode_flow(fields["flow"], "kitti")[..., :2] == flow[n]).all()
            assert (decode_flow(fields["backward_flow"], "kitti")[..., :2] == backward[n]).all()
            occluded = cv2.imdecode(np.frombuffer(fields["occlusion"], np.uint8), -1)
            assert ((occluded > 0) == (maps[n] == 26)).all()


def test_two_sets_in_one_folder(folder, tmp_path):
    save(folder / "Scene01/clone/frames/rgb/Camera_0/rgb_00003.png", picture(0))
    assert_refused(folder, tmp_path, r"rgb_00003.png: .*are two sets unpacked into one folder")
    write_street(tmp_path / "street")
    (tmp_path / "street/scenes.json").unlink()
    assert_refused(tmp_path / "street", tmp_path, "scenes.json .*or is that file missing")


def test_sources_of_two_encodings(folder, tmp_path):
    write_street(tmp_path / "street")
    with pytest.raises(ValueError, match="different encodings"):
        vkitti2.find_frames([folder, tmp_path / "street"])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"world": "street", "count": 4}, "frame pairs in KITTI's layout, not videos"),
        ({"flow_encoding": "flo", "labels": "cityscapes"}, "unknown flow_encoding 'flo'"),
        (
            {"flow_encoding": "kitti", "labels": "cityscapes", "instances": "coco"},
            "unknown instances 'coco' .known: kitti, cityscapes",
        ),
        ([], "scenes.json: damaged"),
    ],
)
def test_settings_of_other_folders(tmp_path, settings, match):
    write_street(tmp_path / "in")
    (tmp_path / "in/scenes.json").write_text(json.dumps(settings))
    assert_refused(tmp_path / "in", tmp_path, match)


def test_command(folder, tmp_path):
    args = ("--source", folder, "--output", tmp_path / "out", "--val_fraction=1", "--scenes=01")
    assert run_command("data_prep.vkitti2", *args).stderr == ""
    args = ("--source", folder, "--output", tmp_path / "no", "--variations=rain")
    line = run_command("data_prep.vkitti2", *args, ok=False).stderr
    assert "Scene01: --variations=rain: not in this folder, which has clone" in line

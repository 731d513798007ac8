"""Records hold every kind of image file so that it decodes to the pixels of `predict`."""

import json

import numpy as np
import pytest

from data_prep.conversion.frames import Frame, read_frame
from data_prep.doctor.read import decode as doctors_decode
from flowseg.data import flow_io, images
from tests.data.test_decoding import write_shard
from tests.support.image_files import (
    JPEG,
    KINDS,
    WIDTH,
    blobs,
    encode,
    marked_jpeg,
)
from tests.support.made_files import ids, motion, read_back, save
from tests.support.own_folder import convert, write_classes

HEIGHT = 24


def write_stills(folder, kinds):
    """Write an image and an empty-handed mask of its upright size for each (suffix, content)."""
    for k, (suffix, data) in enumerate(kinds):
        save(folder / f"images/{k:02d}{suffix}", data)
        height, width = images.decode(data, "a", bit_depth=12).shape[:2]
        save(folder / f"masks/{k:02d}.png", np.full((height, width), 7, np.uint8))
    return folder


def test_every_kind_decodes_to_the_same_pixels(tmp_path, capsys):
    kinds = [
        file
        for kind, files in KINDS.items()
        if "truncated" not in kind and "floating" not in kind
        for file in files
    ]
    folder = write_stills(tmp_path / "mine", kinds)
    index = convert(folder, tmp_path / "out", "cityscapes", next=0)
    frames = read_back(tmp_path / "out")
    assert len(frames) == len(kinds)
    stored = 0
    for k, (suffix, data) in enumerate(kinds):
        expected = images.decode(data, f"a{suffix}", bit_depth=12)
        np.testing.assert_array_equal(frames[f"{k:02d}"]["image1"], expected)
        stored += images.for_records(data, expected)[0] != data
    alpha = sum(images.has_alpha(data, suffix) for suffix, data in kinds)
    assert alpha >= 5 and 10 < stored < len(kinds)
    assert index["images"] == {"alpha_dropped": alpha, "stored_as_png": stored}
    assert index["settings"]["bit_depth"] == 12
    printed = capsys.readouterr().out
    assert "images have 16 bits per value" in printed and "so 12 bits are in use" in printed
    assert printed.count(f"alpha channel dropped: {alpha} frames in the records") == 1
    assert f"orientation or bit depth: {stored} frames in the records" in printed


def test_grey_pairs_with_flow(tmp_path):
    """As KITTI 2012's image_0."""
    pixels = [blobs(1, seed=seed) for seed in (0, 1)]
    for k, image in enumerate(pixels):
        save(tmp_path / f"mine/images/a/{k}.png", image)
    save(tmp_path / "mine/flow/a/0.flo", flow_io.encode_flo(motion(0, HEIGHT, WIDTH)))
    index = convert(tmp_path / "mine", tmp_path / "out")
    (frame,) = read_back(tmp_path / "out").values()
    for key, image in zip(("image1", "image2"), pixels, strict=True):
        np.testing.assert_array_equal(frame[key], np.repeat(image[..., None], 3, 2))
    assert index["images"] == {"alpha_dropped": 0, "stored_as_png": 0}


@pytest.mark.parametrize("kind", ["masks", "flow"])
def test_truth_of_the_stored_size_is_refused(tmp_path, kind):
    """It would lie across the upright frame."""
    for k in (0, 1):
        save(tmp_path / f"mine/images/a/{k}.jpg", marked_jpeg(JPEG, 6))
    if kind == "masks":
        save(tmp_path / "mine/masks/a/0.png", ids(0, [7], HEIGHT, WIDTH))
    else:
        save(tmp_path / "mine/flow/a/0.flo", flow_io.encode_flo(motion(0, HEIGHT, WIDTH)))
    expected = r"a/0\.(png|flo): is 24x40, but 0\.jpg is 40x24 after its EXIF orientation 6 is"
    with pytest.raises(ValueError, match=expected):
        convert(tmp_path / "mine", tmp_path / "out", "cityscapes")


def test_bit_depth_of_a_set(tmp_path):
    """One scale for all frames, which the flag overrides; a larger value is an error."""
    for k, value in enumerate((700, 3000)):
        image = encode(".png", np.full((HEIGHT, WIDTH), value, np.uint16))
        save(tmp_path / f"mine/images/{k}.png", image)
        save(tmp_path / f"mine/masks/{k}.png", ids(0, [7], HEIGHT, WIDTH))
    for depth, shift in ((None, 4), (14, 6)):
        output = tmp_path / f"out{depth}"
        index = convert(tmp_path / "mine", output, "cityscapes", next=0, bit_depth=depth)
        assert index["settings"]["bit_depth"] == shift + 8
        values = [int(frame["image1"][0, 0, 0]) for _, frame in sorted(read_back(output).items())]
        assert values == [700 >> shift, 3000 >> shift]
    with pytest.raises(ValueError, match=r"1\.png: holds the value 3000, but bit_depth=10"):
        convert(tmp_path / "mine", tmp_path / "out", "cityscapes", next=0, bit_depth=10)
    with pytest.raises(ValueError, match="another conversion, with bit_depth=12 instead of 14"):
        convert(tmp_path / "mine", tmp_path / "outNone", "cityscapes", next=0, bit_depth=14)


def test_sets_of_8_bits_have_no_bit_depth(tmp_path):
    folder = write_stills(tmp_path / "mine", KINDS["JPEG: RGB, grey, progressive"])
    assert "bit_depth" not in convert(folder, tmp_path / "out", "cityscapes", next=0)["settings"]


def test_copies_are_compared_upright(tmp_path):
    paths = [save(tmp_path / name, marked_jpeg(JPEG, 6)) for name in ("a.jpg", "b.jpg")]
    upright = images.read_image(paths[0])
    copy = save(tmp_path / "c.png", upright)
    files = {"image1": paths[0]}
    read_frame(Frame("a", files, copies={"image1": (copy,)}))
    save(copy, upright[::-1])
    with pytest.raises(ValueError, match=r"c\.png: its pixels differ"):
        read_frame(Frame("a", files, copies={"image1": (copy,)}))


def test_earlier_records_with_an_orientation_are_refused(tmp_path):
    """Earlier versions stored the bytes of such files; the graph would not rotate them."""
    from flowseg.data.records import make_example
    from tests.data.test_decoding import read_frames

    fields = {"image1": marked_jpeg(JPEG, 6), "image1_format": "jpeg", "frame_id": "f7"}
    record = make_example(**fields, dataset="d", height=HEIGHT, width=WIDTH)
    with pytest.raises(Exception, match="frame f7: convert this data again, its image has an EXIF"):
        read_frames(write_shard(tmp_path / "a.tfrecord", record))
    _, problems = doctors_decode({**fields, "height": HEIGHT, "width": WIDTH})
    assert problems == [
        (
            "file",
            "image1: has EXIF orientation 6, which TensorFlow ignores; convert this data again",
        )
    ]


def test_command_has_the_flag(tmp_path):
    from tests.conftest import run_command

    save(tmp_path / "mine/images/0.png", np.full((HEIGHT, WIDTH), 900, np.uint16))
    save(tmp_path / "mine/masks/0.png", ids(0, [2], HEIGHT, WIDTH))
    classes = write_classes(tmp_path / "classes.json")
    arguments = ("--source", tmp_path / "mine", "--label_set", classes, "--next", 0)
    arguments += ("--val_fraction", 0)
    arguments = ("data_prep.folder", *arguments, "--output", tmp_path / "out", "--bit_depth")
    failed = run_command(*arguments, 8, ok=False)
    assert "0.png: holds the value 900, but --bit_depth=8 allows at most 255" in failed.stderr
    run_command(*arguments, 12)
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert index["settings"]["bit_depth"] == 12 and index["images"]["stored_as_png"] == 1

"""Clips: consecutive frames with their own truth, one augmentation, exact flow, resumable."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from data_prep.conversion import writer
from data_prep.conversion.frames import Frame
from flowseg.data import augment, clips, decoding, flow_io, records
from flowseg.data.augment import Augmentation
from flowseg.data.labels import CITYSCAPES
from tests.data.test_batches import PLAIN, STRONG, same
from tests.data.test_videos import write_frames

HEIGHT, WIDTH = 48, 64


def drive(folder, video, count, speed=(3, -2), first=0, next_step=1):
    """Frames of a smooth random texture that moves by `speed` per frame, with flow both ways."""
    rng = np.random.default_rng(len(video))
    border = 8 + count * max(map(abs, speed))
    texture = cv2.GaussianBlur(
        rng.uniform(0, 255, (HEIGHT + 2 * border, WIDTH + 2 * border, 3)), (0, 0), 3
    )
    texture = np.uint8(cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX))
    folder = folder / video
    folder.mkdir(parents=True)
    flow = np.broadcast_to(np.float32(speed) * next_step, (HEIGHT, WIDTH, 2))
    files = {}
    for n in range(count):
        # The content moves by `speed`, so the window moves the other way.
        left, top = (border - n * speed[0], border - n * speed[1])
        names = {kind: folder / f"{n:03d}_{kind}.png" for kind in ("image", "mask", "flow", "back")}
        cv2.imwrite(str(names["image"]), texture[top : top + HEIGHT, left : left + WIDTH])
        cv2.imwrite(str(names["mask"]), np.full((HEIGHT, WIDTH), n % 5, np.uint8))
        names["flow"].write_bytes(flow_io.encode_kitti_flow(flow))
        names["back"].write_bytes(flow_io.encode_kitti_flow(-flow))
        files[n] = names
    frames = []
    for n, names in files.items():
        fields = {"image1": names["image"], "labels": names["mask"]}
        if n + next_step in files:
            second = files[n + next_step]
            fields |= {"image2": second["image"], "flow": names["flow"]}
            fields |= {"backward_flow": second["back"]}
        frames.append(
            Frame(
                frame_id=f"{video}_{n}",
                files=fields,
                label_set="cityscapes_train",
                video=video,
                frame_index=first + n,
                next_index=first + n + next_step,
            )
        )
    return frames


def convert(frames, output):
    writer.write("drive", {"train": frames}, output, [output.parent], {}, records_per_shard=3)
    return records.match_files(f"{output}/train-*")


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drives")
    frames = drive(folder, "a", 6) + drive(folder, "bb", 5, speed=(-2, 1), first=100)
    order = np.random.default_rng(1).permutation(len(frames))
    return convert([frames[i] for i in order], folder / "records")


def batches_of(
    sets, count, *, length=3, batch_size=2, steps_per_epoch=2, height=32, width=48, **options
):
    drawn = {key: options.pop(key) for key in ("stride", "seed", "weights") if key in options}
    draw = clips.ClipDraw(sets, length, batch_size, steps_per_epoch, **drawn)
    dataset = clips.training_clips(draw, CITYSCAPES, height=height, width=width, **options)
    return list(dataset.take(count).as_numpy_iterator())


def test_every_clip_is_found_once(drives):
    all_clips = clips.find_clips(drives, 3)
    numbers = [[position.frame_index for position in clip] for clip in all_clips]
    assert numbers == [[n, n + 1, n + 2] for n in (*range(4), *range(100, 103))]
    strided = clips.find_clips(drives, 3, stride=2)
    assert [[p.frame_index for p in clip] for clip in strided] == [
        [0, 2, 4], [1, 3, 5], [100, 102, 104],
    ]  # fmt: skip


def test_no_clip_crosses_a_gap(tmp_path):
    frames = [f for f in write_frames(tmp_path, "v", range(7)) if f.frame_index != 3]
    shards = convert(frames, tmp_path / "out")
    all_clips = clips.find_clips(shards, 3)
    assert [[p.frame_index for p in clip] for clip in all_clips] == [[0, 1, 2], [4, 5, 6]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 7}, "no clips of 7 frames with numbers 1 apart here: the longest video has 6"),
        ({"length": 1}, "length=1: a clip needs 2 or more"),
        ({"length": 2, "stride": 0}, "stride=0: a clip needs 1 or more"),
    ],
)
def test_impossible_clips(drives, arguments, message):
    with pytest.raises(ValueError, match=message):
        clips.find_clips(drives, **arguments)


def test_sets_without_videos(tmp_path):
    frames = [f._replace(video="", frame_index=0) for f in write_frames(tmp_path, "c", range(4))]
    with pytest.raises(ValueError, match="its frames are not of videos"):
        clips.find_clips(convert(frames, tmp_path / "out"), 2)


def test_shapes_and_own_labels(drives):
    [(inputs, targets)] = batches_of([drives], 1, batch_size=7, height=48, width=64, strength=PLAIN)
    assert set(inputs) == {"images"} and set(targets) == {"seg", "flow", "backward_flow"}
    assert inputs["images"].shape == (7, 3, 48, 64, 3) and inputs["images"].dtype == np.float32
    assert targets["flow"].shape == targets["backward_flow"].shape == (7, 2, 48, 64, 3)
    # One pass has every clip; the label of a frame is its number modulo 5.
    first = sorted(int(seg[0, 0, 0]) for seg in targets["seg"])
    assert first == sorted([0, 1, 2, 3, 0, 1, 2])
    for seg in targets["seg"]:
        assert [(int(s[0, 0]) - i) % 5 for i, s in enumerate(seg)] == [int(seg[0, 0, 0])] * 3


def test_frames_of_a_clip_are_those_of_the_records(drives):
    [(inputs, targets)] = batches_of([drives], 1, batch_size=7, height=48, width=64, strength=PLAIN)
    frames = {
        (frame["video"], int(frame["frame_index"])): frame
        for frame in decoding.evaluation_data(drives, CITYSCAPES).as_numpy_iterator()
    }
    for images, flow, backward in zip(
        inputs["images"], targets["flow"], targets["backward_flow"], strict=True
    ):
        [key] = [k for k, f in frames.items() if np.array_equal(f["image1"], images[0])]
        for i in range(3):
            frame = frames[key[0], key[1] + i]
            np.testing.assert_array_equal(images[i], frame["image1"])
            if i < 2:
                np.testing.assert_array_equal(flow[i], frame["flow"])
                np.testing.assert_array_equal(backward[i], frame["backward_flow"])


def shift_error(image1, image2, flow):
    """Mean difference of image1 and image2 moved back by `flow`, away from the borders."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    at = x + flow[..., 0], y + flow[..., 1]
    moved = cv2.remap(image2, *at, cv2.INTER_LINEAR)
    inside = (at[0] > 1) & (at[1] > 1) & (at[0] < x.max() - 1) & (at[1] < y.max() - 1)
    assert inside.mean() > 0.5 and (flow[..., 2] > 0).mean() > 0.9
    return np.abs(image1 - moved)[inside].mean()


def test_augmentation_keeps_flow_exact(drives):
    strength = Augmentation(scale=0.3, stretch=0.2, flip=0.5)
    for inputs, targets in batches_of([drives], 3, strength=strength):
        for images, flow, backward in zip(
            inputs["images"], targets["flow"], targets["backward_flow"], strict=True
        ):
            for i in range(2):
                still = np.abs(images[i] - images[i + 1]).mean()
                assert shift_error(images[i], images[i + 1], flow[i]) < 0.25 * still
                assert shift_error(images[i + 1], images[i], backward[i]) < 0.25 * still


@pytest.mark.parametrize("seed", range(4))
def test_clip_of_two_frames_equals_a_pair(seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, 40, 60, 3), np.uint8)
    flow = np.dstack([rng.normal(0, 3, (40, 60, 2)), rng.random((40, 60)) < 0.7]).astype(np.float32)
    seg = rng.integers(0, 19, (2, 40, 60), np.int32)
    arguments = tf.constant([7, seed]), 32, 48, STRONG
    pair = {"image1": images[0], "image2": images[1], "flow": flow, "seg": seg[0]}
    first = {"image1": images[0], "flow": flow, "backward_flow": flow, "seg": seg[0]}
    frames = [first, {"image1": images[1], "seg": seg[1]}]
    pair, *frames = (
        {key: tf.constant(value) for key, value in each.items()} for each in (pair, *frames)
    )
    pair, clip = augment.augment(pair, *arguments), augment.augment_clip(frames, *arguments)
    np.testing.assert_array_equal(clip["images"], tf.stack([pair["image1"], pair["image2"]]))
    np.testing.assert_array_equal(clip["flow"][0], pair["flow"])
    np.testing.assert_array_equal(clip["seg"][0], pair["seg"])


def test_stride_without_flow_is_masked(drives):
    [(_, targets)] = batches_of([drives], 1, stride=2, strength=PLAIN)
    assert not targets["flow"].any() and not targets["backward_flow"].any()
    assert (targets["seg"] != 255).all()


def test_flow_of_pairs_two_frames_apart(tmp_path):
    shards = convert(drive(tmp_path, "a", 6, next_step=2), tmp_path / "out")
    [(_, near)] = batches_of([shards], 1, strength=PLAIN)
    [(_, far)] = batches_of([shards], 1, stride=2, strength=PLAIN)
    assert not near["flow"].any()
    assert (far["flow"][..., 2] == 1).all() and (np.abs(far["flow"][..., 0]) == 6).all()


def test_missing_truth_is_masked(tmp_path):
    frames = drive(tmp_path, "a", 4)
    for name, field in ((1, "flow"), (2, "labels"), (0, "backward_flow")):
        del frames[name].files[field]
    frames[2] = frames[2]._replace(label_set="")
    shards = convert(frames, tmp_path / "out")
    [(_, targets)] = batches_of(
        [shards], 1, length=4, batch_size=1, strength=PLAIN, height=48, width=64
    )
    assert [bool((seg != 255).all()) for seg in targets["seg"][0]] == [True, True, False, True]
    assert [bool(flow[..., 2].all()) for flow in targets["flow"][0]] == [True, False, True]
    assert [bool(flow[..., 2].all()) for flow in targets["backward_flow"][0]] == [False, True, True]


def test_resumed_run_gets_same_clips(drives, tmp_path):
    other = convert(drive(tmp_path, "ccc", 5), tmp_path / "out")
    options = {"strength": STRONG, "weights": [2, 1], "steps_per_epoch": 3, "seed": 4}
    complete = batches_of([drives, other], 8, **options)
    for first_step in (3, 4, 7):
        resumed = batches_of([drives, other], 8 - first_step, first_step=first_step, **options)
        for a, b in zip(complete[first_step:], resumed, strict=True):
            assert same(a, b)
    assert not any(same(a, b) for a, b in zip(complete[:3], complete[3:6], strict=True))


def test_shares_of_hosts_are_the_batch(drives):
    options = {"strength": STRONG, "batch_size": 4}
    whole = batches_of([drives], 2, **options)
    shares = [batches_of([drives], 2, host=host, hosts=2, **options) for host in range(2)]
    for step, (inputs, _) in enumerate(whole):
        joined = np.concatenate([share[step][0]["images"] for share in shares])
        np.testing.assert_array_equal(joined, inputs["images"])


def test_every_clip_once_per_pass(drives):
    # 7 clips: batches of 7 are one pass each, in different orders.
    batches = batches_of([drives], 4, batch_size=7, steps_per_epoch=2, strength=PLAIN)
    orders = [tuple(np.float32(inputs["images"]).mean((1, 2, 3, 4))) for inputs, _ in batches]
    assert len(set(orders)) == 4

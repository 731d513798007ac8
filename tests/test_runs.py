"""A loaded run: its predictions, which are the same for a stream of frames as for its pairs."""

import itertools

import keras
import numpy as np
import pytest

import flowseg
from flowseg import runs
from flowseg.data.labels import CITYSCAPES
from flowseg.media.drawing import write_png
from flowseg.media.frames import open_frames, read_image
from flowseg.media.video import SourceFrame
from flowseg.media.video_panels import compose, first_max_flow, write_video
from flowseg.network.model import build_flowseg
from tests.support.stand_in import stand_in


@pytest.fixture(scope="module")
def pretrained():
    return flowseg.load("pretrained")


def synthetic(count, height=90, width=134):
    """Frames of a coarse texture that moves 3 px right and 1 px down."""
    rng = np.random.default_rng(3)
    texture = np.kron(rng.integers(0, 256, (12, 17, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    rolled = (np.roll(texture, (n, 3 * n), (0, 1)) for n in range(count))
    return [image[:height, :width] for image in rolled]


def assert_streamed_as_pairs(run, images, scale):
    """Check that `stream` equals `predict` of pairs; the last frame is paired with the previous."""
    streamed = list(run.stream(images, scale))
    assert len(streamed) == len(images)
    for (seg, flow), pair in zip(streamed, itertools.pairwise(images), strict=False):
        assert_same_classes(run, seg, pair, scale)
        assert flow.dtype == np.float32
        np.testing.assert_allclose(flow, run.predict(*pair, scale)[1], rtol=0, atol=1e-3)
    seg, flow = streamed[-1]
    assert flow is None
    assert_same_classes(run, seg, (images[-1], images[-2]), scale)


def assert_same_classes(run, seg, pair, scale):
    """Check that classes are identical, except where logits are equal up to rounding errors."""
    expected, logits = run.predict(*pair, scale)[0], run.predict_logits(*pair, scale)[0]
    assert seg.dtype == np.uint8 and seg.shape == pair[0].shape[:2]
    differs = seg != expected
    second, first = np.sort(logits[differs], axis=-1)[:, -2:].T
    assert differs.sum() <= 3 and (first - second < 1e-3).all()


@pytest.mark.parametrize("scale", [1.0, 0.6, 1.5])
def test_stream_equals_pairs(pretrained, scale):
    assert_streamed_as_pairs(pretrained, synthetic(4), scale)


@pytest.mark.parametrize(
    ("folder", "count", "crop", "scale"),
    [
        ("davis/JPEGImages/480p/car-shadow", 3, 0, 0.5),
        ("davis/JPEGImages/480p/car-shadow", 3, 7, 0.77),
        ("kitti/data_scene_flow/training/image_2", 2, 5, 1.0),
        pytest.param("kitti/data_scene_flow/training/image_2", 2, 0, 1.0, marks=pytest.mark.long),
    ],
)
def test_real_frames(pretrained, samples, folder, count, crop, scale):
    frames = itertools.islice(open_frames(samples / folder)[0], count)
    images = [frame.image[crop:, 2 * crop :] for frame in frames]
    assert_streamed_as_pairs(pretrained, images, scale)


def test_stream_of_single_frame(pretrained):
    (image,) = synthetic(1)
    ((seg, flow),) = pretrained.stream([image])
    assert flow is None
    assert_same_classes(pretrained, seg, (image, image), 1.0)
    assert list(pretrained.stream([])) == []


def test_each_frame_is_encoded_once(small_encoder, tmp_path):
    keras.utils.set_random_seed(1)
    network = build_flowseg(19)
    run = runs.Run(network, CITYSCAPES)
    models = run._streaming_models
    calls = {"encoder": 0, "decoder": 0}

    def count(name, model):
        predict = model.predict_on_batch

        def counted(inputs):
            calls[name] += 1
            return predict(inputs)

        model.predict_on_batch = counted

    for name, model in models._asdict().items():
        count(name, model)
    images = synthetic(5, 32, 64)
    assert len(list(run.stream(images))) == 5 and calls == {"encoder": 5, "decoder": 5}
    # A video has no image of the last frame, which is therefore not decoded.
    calls.update(encoder=0, decoder=0)
    frames = [SourceFrame(str(number), image) for number, image in enumerate(images)]
    assert write_video({"a": run}, frames, tmp_path, 10) == 4
    assert calls == {"encoder": 5, "decoder": 4}


def test_batch_statistics_are_unchanged(pretrained):
    before = [keras.ops.convert_to_numpy(w) for w in pretrained.model.non_trainable_variables]
    list(pretrained.stream(synthetic(2, 64, 64)))
    after = [keras.ops.convert_to_numpy(w) for w in pretrained.model.non_trainable_variables]
    assert before and all((a == b).all() for a, b in zip(before, after, strict=True))


def test_stream_of_files(pretrained, tmp_path):
    images = synthetic(3)
    for number, image in enumerate(images):
        write_png(tmp_path / f"{number}.png", image)
    expected = list(pretrained.stream(images))
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for frames in (tmp_path, str(tmp_path), paths, np.stack(images)):
        streamed = list(pretrained.stream(frames))
        assert all((a[0] == b[0]).all() for a, b in zip(streamed, expected, strict=True))
        assert (streamed[1][1] == expected[1][1]).all() and streamed[2][1] is None
    # After a gap in the numbers the stream begins again.
    (tmp_path / "2.png").rename(tmp_path / "9.png")
    assert [flow is None for _, flow in pretrained.stream(tmp_path)] == [False, True, True]


def test_stream_of_invalid_frames(pretrained, tmp_path):
    image = synthetic(1)[0]
    with pytest.raises(ValueError, match="frame 1: 133x90 px, but the frames before it"):
        list(pretrained.stream([image, image[:, 1:]]))
    # Invalid paths and scales are rejected before iterating.
    with pytest.raises(ValueError, match="nowhere: no such video file or folder"):
        pretrained.stream(tmp_path / "nowhere")
    for scale in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale: .* is not a positive number"):
            pretrained.stream([image], scale)
        with pytest.raises(ValueError, match="scale: .* is not a positive number"):
            pretrained.predict(image, image, scale)


def test_predict_inputs(pretrained, tmp_path):
    image1, image2 = synthetic(2)
    write_png(tmp_path / "a.png", image1)
    expected = pretrained.predict(image1, image2)
    for pair in ((tmp_path / "a.png", image2), (np.float32(image1), image2)):
        seg, flow = pretrained.predict(*pair)
        assert (seg == expected[0]).all() and (flow == expected[1]).all()
    functions = (pretrained.predict, pretrained.predict_logits, pretrained.predict_confidence)
    for function in functions:
        with pytest.raises(ValueError, match="image2: has values from 0 to 1, .*multiply"):
            function(image1, image2 / 255.0)
        with pytest.raises(ValueError, match="image1 is 134x90 px but image2 is 134x89 px"):
            function(image1, image2[1:])


def test_classes_and_palette(pretrained):
    assert pretrained.classes == CITYSCAPES.names and pretrained.classes[13] == "car"
    palette = pretrained.palette
    assert palette.shape == (19, 3) and palette.dtype == np.uint8
    assert tuple(palette[13]) == CITYSCAPES.palette[13]


def test_video_equals_pairs(pretrained, tmp_path):
    """The images of a folder are lossless: equal to those of single pairs, also of two runs."""
    frames = [SourceFrame(f"{n}.png", image) for n, image in enumerate(synthetic(4))]
    other = stand_in(lambda image1, *_, scale: (image1[..., 0] // 20, 0 * image1[..., :2] + 2.0))
    for both in ({"a": pretrained}, {"a": pretrained, "b": other}):
        out = tmp_path / str(len(both))
        assert write_video(both, iter(frames), out, 10, count=4, scale=0.6) == 3
        full = None
        for number, (frame, following) in enumerate(itertools.pairwise(frames)):
            predictions = {
                key: (*run.predict(frame.image, following.image, scale=0.6), run.label_set)
                for key, run in both.items()
            }
            full = full or max(first_max_flow(flow) for _, flow, _ in predictions.values())
            written = read_image(out / f"{number:06d}.png").astype(int)
            expected = compose(frame.name, frame.image, predictions, full)
            # Rounding differences of the flow may change a colour slightly.
            assert np.abs(written - expected).max() <= 2 and (written == expected).mean() > 0.999

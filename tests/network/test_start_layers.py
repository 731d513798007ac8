"""Flow that starts coarser than stride 16: its layers by definition, and what it makes visible."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from experiments.exports import litert
from flowseg import packaged, runs
from flowseg.media.frames import read_image
from flowseg.network.decoder import build_decoder
from flowseg.network.model import build_flowseg, training_model
from flowseg.network.start_layers import AverageCells, ChooseFlow, CropEnd
from flowseg.training import resume

NAMES = ("image1", "image2")
rng = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(4, 8), (5, 7), (1, 3)])
@pytest.mark.parametrize("known", [True, False])
def test_average_cells(shape, known):
    x = rng.normal(size=(2, *shape, 3)).astype("float32")
    # NumPy: repeat the last row and column up to a multiple of 4.
    rows, columns = (-(-n // 4) for n in shape)
    padding = ((0, 0), (0, 4 * rows - shape[0]), (0, 4 * columns - shape[1]), (0, 0))
    cells = np.pad(x, padding, "edge").reshape(2, rows, 4, columns, 4, 3).mean((2, 4))
    layer = AverageCells(4)
    image = keras.Input((*shape, 3) if known else (None, None, 3))
    model = keras.Model(image, layer(image))
    np.testing.assert_allclose(model.predict_on_batch(x), cells, atol=1e-6)
    assert layer.compute_output_shape(x.shape) == cells.shape
    assert layer.compute_output_shape((None, None, None, 3)) == (None, None, None, 3)


@pytest.mark.parametrize("known", [True, False])
def test_crop_end(known):
    x, like = np.arange(48.0, dtype="float32").reshape(1, 4, 6, 2), np.zeros((1, 3, 6, 5))
    shapes = [a.shape[1:] if known else (None, None, a.shape[3]) for a in (x, like)]
    inputs = [keras.Input(shape) for shape in shapes]
    model = keras.Model(inputs, CropEnd()(*inputs))
    np.testing.assert_array_equal(model.predict_on_batch([x, like]), x[:, :3])


def test_choose_flow():
    # Columns 0 to 13 move right by 6 px, over columns 14 to 19; the others keep their place. (The
    # six columns at the left match both.)
    first = rng.normal(size=(1, 20, 40, 16)).astype("float32")
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    second = first.copy()
    second[:, :, 6:20] = first[:, :, :14]
    flows = [
        np.float32([[[[6, 0]]]]) * np.ones((1, 20, 40, 1), "float32"),
        np.zeros((1, 20, 40, 2), "float32"),
    ]
    layer = ChooseFlow(5)
    chosen = ops.convert_to_numpy(layer(first, second, flows, np.zeros((1, 20, 40, 2))))[0]
    np.testing.assert_allclose(chosen[3:-3, 8:12] - [6, 0], 0, atol=0.01)
    assert np.abs(chosen[3:-3, 24:]).max() < 0.01
    # Where the flows match equally, as in features that are the same everywhere, the preference
    # decides.
    flat = np.full((1, 20, 40, 16), 0.25, "float32")
    prefer = np.broadcast_to(np.float32([1, 3]), (1, 20, 40, 2))
    even = ops.convert_to_numpy(layer(flat, flat, flows, prefer))[0, 10, 20]
    np.testing.assert_allclose(even, [6 / (1 + np.exp(2)), 0], atol=1e-4)


def test_no_gradient_through_the_warp():
    first, second = (tf.constant(rng.normal(size=(1, 6, 6, 4)), tf.float32) for _ in range(2))
    flow, zero = tf.Variable(np.full((1, 6, 6, 2), 0.5, "float32")), tf.zeros((1, 6, 6, 2))
    layer = ChooseFlow(3)
    with tf.GradientTape() as tape:
        chosen = layer(first, second, [flow, zero], tf.zeros((1, 6, 6, 2)))
    share = chosen / 0.5
    # Only the share that weights this flow, not how the cosines change with it.
    np.testing.assert_allclose(tape.gradient(chosen, flow), share, atol=1e-6)


def test_outputs_of_the_starts():
    shapes = {f"stride{stride}": (None, None, None, 8) for stride in (2, 4, 8, 16, 32)}
    decoders = {start: build_decoder(shapes, 3, coarsest=start) for start in (16, 32, 64)}
    outputs = {start: set(decoder.output) for start, decoder in decoders.items()}
    assert outputs[32] - outputs[16] == {"flow_32"}
    assert outputs[64] - outputs[16] == {"flow_32", "flow_64"}
    with pytest.raises(ValueError, match="coarsest 128: not one of 16, 32, 64"):
        build_decoder(shapes, 3, coarsest=128)


@pytest.fixture(scope="module")
def far_network():
    """The pretrained network with a start at stride 64 that has not been trained."""
    run = runs.load_run(None, "pretrained")
    network = build_flowseg(19, "both", "efficientnet_lite0", coarsest=64)
    resume.copy_weights(run.model, network)
    return run.model, network


def test_start_sees_motion_beyond_the_reach_of_stride_16(far_network):
    # The sample frame, moved by 128 px: out of reach for two steps of 3 px at stride 16 (96 px).
    frame = read_image(packaged.NETWORKS["pretrained"] / "sample_image1.png").astype("float32")
    pair = {"image1": frame[None, :, 128:], "image2": frame[None, :, :-128]}
    errors = []
    for network in far_network:
        flow = network.predict_on_batch(pair)["flow"][0]
        visible = flow[16:-16, 16:144]  # What stays in the frame, without the border.
        errors.append(np.median(np.hypot(visible[..., 0] - 128, visible[..., 1])))
    assert errors[0] > 50 and errors[1] < 3


@pytest.fixture
def small_network(small_encoder):
    return build_flowseg(3, backbone="efficientnet_lite0", coarsest=64)


def test_any_size(small_network):
    training = training_model(small_network)
    for height, width in ((33, 47), (70, 200)):
        image = rng.uniform(0, 255, (1, height, width, 3)).astype("float32")
        outputs = training.predict_on_batch({"image1": image, "image2": image})
        for name in ("flow", "flow_16", "flow_32", "flow_64"):
            assert outputs[name].shape == (1, height, width, 2)
            assert np.isfinite(outputs[name]).all()


def test_converts_to_builtin_tflite_operators(small_network):
    file = litert.interpreter(litert.convert_pair(small_network, 64, 96))
    assert not [x for x in file._get_ops_details() if x["op_name"].startswith(("Flex", "CUSTOM"))]
    pair = {name: rng.uniform(0, 255, (1, 64, 96, 3)).astype("float32") for name in NAMES}
    outputs = file.get_signature_runner()(**pair)
    flow = next(value for value in outputs.values() if value.shape[-1] == 2)
    expected = small_network.predict_on_batch(pair)["flow"]
    np.testing.assert_allclose(flow, expected, atol=0.01)

"""The network: shapes, invariants and saving, on small inputs with random weights."""

from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from flowseg import runs
from flowseg.network import backbones
from flowseg.network.decoder import EXCHANGES, build_decoder, stream_layers
from flowseg.network.layers import CropLike, PadToMultiple
from flowseg.network.model import (
    build_flowseg,
    compose,
    confident_model,
    parts,
    set_learning,
    training_model,
)

# A tiny run written by an earlier version, and its predictions.
EARLIER_RUN = Path(__file__).parents[1] / "reference" / "earlier_run"


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    return build_flowseg(5)


def frames(height, width, batch=1, seed=0):
    rng = np.random.default_rng(seed)
    shape = (batch, height, width, 3)
    return {key: rng.uniform(0, 255, shape).astype("float32") for key in ("image1", "image2")}


@pytest.mark.parametrize("size", [(64, 96), (50, 70), (33, 1), (9, 130)])
def test_output_size(network, size):
    outputs = network(frames(*size, batch=2))
    assert set(outputs) == {"seg", "flow"}
    assert outputs["seg"].shape == (2, *size, 5)
    assert outputs["flow"].shape == (2, *size, 2)
    assert all(np.isfinite(ops.convert_to_numpy(x)).all() for x in outputs.values())


def test_pad_and_crop():
    image = np.arange(2 * 3, dtype="float32").reshape(1, 2, 3, 1)
    padded = ops.convert_to_numpy(PadToMultiple(4)(image))[0, ..., 0]
    # Rows 0 and 1 are each repeated once, column 2 once.
    expected = np.array([[0, 1, 2, 2], [0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5]])
    np.testing.assert_array_equal(padded, expected)
    back = ops.convert_to_numpy(CropLike()(padded[None, ..., None], image))
    np.testing.assert_array_equal(back, image)
    multiple = np.ones((1, 8, 4, 1), "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(PadToMultiple(4)(multiple)), multiple)


def test_batch_equals_single_examples(network):
    pair = frames(64, 96, batch=2)
    together = network(pair)
    for i in range(2):
        single = network({key: image[i : i + 1] for key, image in pair.items()})
        for key in together:
            a, b = (ops.convert_to_numpy(x) for x in (together[key][i : i + 1], single[key]))
            np.testing.assert_allclose(a, b, atol=2e-3)


def test_initial_dependence_on_second_frame(network):
    pair = frames(64, 96)
    other = {**pair, "image2": frames(64, 96, seed=1)["image2"]}
    first, second = network(pair), network(other)
    assert np.abs(ops.convert_to_numpy(first["flow"] - second["flow"])).max() > 0.01
    # Exchange layers start at zero: "both" is initially equivalent to "none".
    np.testing.assert_allclose(
        ops.convert_to_numpy(first["seg"]), ops.convert_to_numpy(second["seg"]), atol=1e-4
    )


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_exchange_layers(exchange):
    shapes = {f"stride{s}": (None, None, None, 8) for s in backbones.STRIDES}
    decoder = build_decoder(shapes, 3, exchange)
    names = {layer.name for layer in decoder.layers}
    for direction in ("seg_to_flow", "flow_to_seg"):
        built = {f"{direction}_{stride}" for stride in (16, 8, 4)} & names
        assert len(built) == (3 if exchange in (direction, "both") else 0)


def test_no_gradients_between_streams():
    sizes = {2: (16, 32, 16), 4: (8, 16, 24), 8: (4, 8, 40), 16: (2, 4, 112), 32: (1, 2, 320)}
    shapes = {f"stride{stride}": (None, *size) for stride, size in sizes.items()}
    decoder = build_decoder(shapes, 3, "both")
    rng = np.random.default_rng(0)
    for layer in decoder.layers:
        if "_to_" in layer.name:
            layer.kernel.assign(rng.normal(size=layer.kernel.shape, scale=0.1))
    features = {
        frame: {
            name: tf.constant(rng.normal(size=(1, *shape[1:])), tf.float32)
            for name, shape in shapes.items()
        }
        for frame in ("frame1", "frame2")
    }
    streams = {
        "seg": ("seg_16_in_conv", "seg_4_out_conv", "flow_to_seg_8"),
        "flow": ("flow_conv1", "flow_fine_conv2", "seg_to_flow_8"),
    }
    for task, other in (("seg", "flow"), ("flow", "seg")):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(decoder(features)[task] ** 2)
        kernels = {
            stream: [decoder.get_layer(name).kernel for name in names]
            for stream, names in streams.items()
        }
        gradients = tape.gradient(loss, kernels)
        assert all(np.abs(gradient).max() > 0 for gradient in gradients[task])
        assert gradients[other] == [None] * 3


def test_unknown_exchange():
    with pytest.raises(ValueError, match="sideways.*both"):
        build_decoder({}, 3, "sideways")


def test_training_model(network):
    training = training_model(network)
    assert set(training.output) == {
        "seg",
        "flow",
        "flow_4",
        "flow_8",
        "flow_16",
        "sure_2",
        "sure_8",
        "sure_16",
    }
    assert {id(w) for w in training.weights} == {id(w) for w in network.weights}
    pair = frames(40, 72)
    public, outputs = network(pair), training(pair)
    for key in public:
        np.testing.assert_array_equal(*(ops.convert_to_numpy(x[key]) for x in (public, outputs)))
    assert outputs["flow_16"].shape == (1, 40, 72, 2)
    assert outputs["sure_8"].shape == (1, 40, 72, 3)
    confidence = ops.convert_to_numpy(outputs["sure_2"])
    np.testing.assert_array_equal(confidence[..., :2], ops.convert_to_numpy(public["flow"]))


def test_confident_model(network):
    pair = frames(40, 72)
    maps = {k: ops.convert_to_numpy(v) for k, v in confident_model(network)(pair).items()}
    assert set(maps) == {"seg", "flow", "confidence"} and maps["confidence"].shape == (1, 40, 72)
    np.testing.assert_array_equal(maps["flow"], ops.convert_to_numpy(network(pair)["flow"]))
    logit = ops.convert_to_numpy(training_model(network)(pair)["sure_2"])[..., 2]
    np.testing.assert_allclose(maps["confidence"], 1 / (1 + np.exp(-logit)), atol=1e-5)
    encoder, decoder = parts(network)
    outputs = {key: decoder.output[key] for key in ("seg", "flow")}
    older = SimpleNamespace(
        get_layer={"encoder": encoder, "decoder": keras.Model(decoder.input, outputs)}.get
    )
    with pytest.raises(ValueError, match="before the confidence head existed"):
        confident_model(older)


def test_encoder_normalisation(network):
    encoder = parts(network).encoder
    stem = keras.Model(encoder.input, encoder.get_layer("normalize").output)
    colour = np.array([[[[200.0, 100.0, 50.0]]]], "float32").repeat(32, 1).repeat(32, 2)
    # Blue, green, red, minus the ImageNet means.
    expected = [50 - 103.939, 100 - 116.779, 200 - 123.68]
    np.testing.assert_allclose(ops.convert_to_numpy(stem(colour))[0, 0, 0], expected, rtol=1e-5)
    strides = {key: x.shape[1:3] for key, x in encoder(np.zeros((1, 64, 96, 3))).items()}
    assert strides == {f"stride{s}": (64 // s, 96 // s) for s in (2, 4, 8, 16, 32)}


def test_save_and_load_in_safe_mode(network, tmp_path):
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    pair = frames(40, 56)
    for key, output in network(pair).items():
        np.testing.assert_allclose(
            ops.convert_to_numpy(output), ops.convert_to_numpy(loaded(pair)[key]), atol=1e-4
        )
    assert training_model(loaded).count_params() == network.count_params()


def test_network_of_earlier_version():
    run = runs.load_run(EARLIER_RUN)
    with np.load(EARLIER_RUN / "answers.npz") as stored:
        expected = {key: stored[key] for key in ("seg", "flow")}
        image = stored["image"].astype("float32")[None]
    pair = {"image1": image, "image2": np.roll(image, 2, axis=2)}
    outputs = run.model.predict_on_batch(pair)
    assert run.label_set.names == ("road", "car") and set(outputs) == set(expected)
    for key, output in outputs.items():
        assert expected[key].std() > 0.05
        np.testing.assert_allclose(output[0], expected[key], rtol=0, atol=1e-4, err_msg=key)


@pytest.fixture
def small_network():
    """A full decoder after an encoder of one convolution per stride."""
    image = keras.Input((None, None, 3))
    features, x = {}, image
    for stride in backbones.STRIDES:
        x = features[f"stride{stride}"] = keras.layers.Conv2D(4, 3, 2, "same")(x)
    encoder = keras.Model(image, features, name="encoder")
    decoder = build_decoder({key: tensor.shape for key, tensor in features.items()}, 3)
    return compose(encoder, decoder, ("seg", "flow"), "small")


@pytest.mark.parametrize("form", [lambda network: network, training_model])
def test_trainable_stream(small_network, form):
    encoder, decoder = parts(small_network)
    names = {
        stream: {layer.name for layer in stream_layers(decoder, stream) if layer.weights}
        for stream in ("seg", "flow")
    }
    names["both"] = names["seg"] | names["flow"]
    # Independent of what was frozen before.
    for learn in ("seg", "flow", "both", "flow", "seg"):
        set_learning(form(small_network), learn, "none")
        learning = {layer.name for layer in decoder.layers if layer.trainable_weights}
        assert learning == names[learn]
        assert encoder.trainable
    set_learning(small_network, "seg", "encoder")
    trainable = {id(w) for layer in stream_layers(decoder, "seg") for w in layer.trainable_weights}
    assert {id(w) for w in small_network.trainable_weights} == trainable


def test_trainable_stream_of_loaded_network():
    network = runs.load_run(EARLIER_RUN).model
    decoder = parts(network).decoder
    set_learning(network, "both", "none")
    before = [w.path for w in network.trainable_weights]
    assert "seg_logits/kernel" in before and "mix_2/kernel" in before
    for learn in ("seg", "flow"):
        with pytest.raises(ValueError, match="loaded from a .keras file.*copy the weights"):
            set_learning(network, learn, "encoder")
    with pytest.raises(ValueError, match="stream 'motion': not one of seg, flow"):
        stream_layers(decoder, "motion")
    # The errors changed nothing.
    assert [w.path for w in network.trainable_weights] == before


def test_unavailable_backbone_weights(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="^backbone_weights nowhere.h5: neither none, imagenet"):
        backbones.build_encoder("resnet50", "nowhere.h5")
    (tmp_path / "bad.weights.h5").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="bad.weights.h5: not weights of resnet50"):
        backbones.build_encoder("resnet50", str(tmp_path / "bad.weights.h5"))

    resnet50 = keras.applications.ResNet50

    def offline(*args, weights=None, **kwargs):
        if weights == "imagenet":
            raise OSError("no network")
        return resnet50(*args, weights=weights, **kwargs)

    monkeypatch.setattr(keras.applications, "ResNet50", offline)
    with pytest.raises(ValueError, match="could not be downloaded.*as backbone_weights"):
        backbones.build_encoder("resnet50", "imagenet")


def test_backbone_weights_from_file(tmp_path):
    donor = keras.applications.ResNet50(include_top=False, weights=None)
    donor.save_weights(tmp_path / "donor.weights.h5")
    encoder = backbones.build_encoder("resnet50", str(tmp_path / "donor.weights.h5"))
    for name in ("conv1_conv", "conv5_block3_out"):
        for a, b in zip(
            donor.get_layer(name).get_weights(), encoder.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        donor.get_layer("conv5_block3_3_conv").get_weights()[0],
        encoder.get_layer("conv5_block3_3_conv").get_weights()[0],
    )


def test_confidence_output_holds_unfilled_flow(network):
    outputs = training_model(network)(frames(64, 96))
    for stride in (16, 8):
        matched, filled = (outputs[f"{name}_{stride}"][..., :2] for name in ("sure", "flow"))
        difference = np.abs(ops.convert_to_numpy(matched) - ops.convert_to_numpy(filled))
        # Filled flow is partly a mean over the surroundings: it differs, but moderately.
        assert 1e-3 < difference.max() < np.abs(matched).max()

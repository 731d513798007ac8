"""Write tfa_answers.npz: outputs of tensorflow-addons 0.23 for warping and correlation.

tensorflow-addons cannot be imported together with Keras 3, so this script runs in a
separate environment (Python 3.11, CPU), from the root of the repository:

    python3.11 -m venv tfa_env
    tfa_env/bin/pip install -r tests/reference/requirements-tfa.txt
    tfa_env/bin/python tests/reference/make_tfa_answers.py

`tests/network/test_flow_ops_reference.py` compares FlowSeg with the stored outputs.
All arrays use FlowSeg's conventions. Keys of the file:

    warp/image                 (2, 13, 17, 5), the image that is sampled
    warp/<case>/flow           (2, 13, 17, 2), (u, v) = (x right, y down)
    warp/<case>/warped         the output, image at p + flow(p)
    warp/<case>/inside         bool, where p + flow(p) is in [0, W-1] x [0, H-1]
    cost/c<C>/features1, 2     (2, 9, 12, C)
    cost/c<C>/r<radius>        (2, 9, 12, (2 * radius + 1) ** 2)

Where `inside` is false, dense_image_warp clamps to the border and FlowSeg gives 0:
compare only inside.
"""

from pathlib import Path

import numpy as np
import tensorflow_addons as tfa

OUTPUT = Path(__file__).with_name("tfa_answers.npz")
BATCH, HEIGHT, WIDTH, CHANNELS = 2, 13, 17, 5
FEATURES_HEIGHT, FEATURES_WIDTH = 9, 12
FEATURES_CHANNELS = (8, 32)
RADII = (1, 3, 4)


def pixel_grid():
    """(H, W, 2), the (x, y) of every pixel."""
    return np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=-1)


def make_flows(rng):
    """Flows by case, in FlowSeg's convention: (u, v) = (x right, y down)."""
    grid = pixel_grid()
    size = (BATCH, HEIGHT, WIDTH)
    last = np.array([WIDTH - 1, HEIGHT - 1])
    # Sample points are inside the image; a small margin keeps rounding from moving
    # them over the border. Integer points may be on the border.
    subpixel_points = rng.uniform(0.05, last - 0.05, (*size, 2))
    integer_points = rng.integers(0, last + 1, (*size, 2))
    flows = {
        "inside": subpixel_points - grid,
        "leaving": rng.normal(0.0, 6.0, (*size, 2)),
        "zero": np.zeros((*size, 2)),
        "integer": integer_points - grid,
    }
    return {case: flow.astype(np.float32) for case, flow in flows.items()}


def backward_warp(image, flow):
    # dense_image_warp samples at p - flow and orders its flow (dy, dx), so swap
    # (u, v) to (v, u) and negate.
    return tfa.image.dense_image_warp(image, -flow[..., ::-1]).numpy()


def cost_volume(features1, features2, radius):
    # pad = max_displacement keeps the size. The output needs no reordering:
    # CorrelationCost also has dy outer and dx inner, and divides by channels.
    layer = tfa.layers.CorrelationCost(
        kernel_size=1,
        max_displacement=radius,
        stride_1=1,
        stride_2=1,
        pad=radius,
        data_format="channels_last",
    )
    return layer([features1, features2]).numpy()


def main():
    rng = np.random.default_rng(20240501)
    arrays = {}

    image = rng.uniform(0.0, 1.0, (BATCH, HEIGHT, WIDTH, CHANNELS)).astype(np.float32)
    arrays["warp/image"] = image
    for case, flow in make_flows(rng).items():
        point = pixel_grid() + flow
        inside = (point >= 0) & (point <= [WIDTH - 1, HEIGHT - 1])
        arrays[f"warp/{case}/flow"] = flow
        arrays[f"warp/{case}/warped"] = backward_warp(image, flow)
        arrays[f"warp/{case}/inside"] = inside.all(axis=-1)

    for channels in FEATURES_CHANNELS:
        shape = (BATCH, FEATURES_HEIGHT, FEATURES_WIDTH, channels)
        features1 = rng.normal(size=shape).astype(np.float32)
        features2 = rng.normal(size=shape).astype(np.float32)
        arrays[f"cost/c{channels}/features1"] = features1
        arrays[f"cost/c{channels}/features2"] = features2
        for radius in RADII:
            arrays[f"cost/c{channels}/r{radius}"] = cost_volume(features1, features2, radius)

    np.savez_compressed(OUTPUT, **arrays)
    print(f"{OUTPUT.name}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()

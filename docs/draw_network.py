"""Draw the network from the model itself: docs/network.svg.

python -m docs.draw_network [--backbone efficientnet_lite0] [--output docs/network.svg]

The numbers of channels and parameters are read from the built Keras model, so that the diagram
cannot differ from the code.
"""

from absl import flags

from flowseg.cli import entry

# isort: split
import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch

from flowseg import files
from flowseg.network.backbones import BACKBONES, STRIDES
from flowseg.network.model import build_flowseg, parts

ENCODER, SEG, FLOW, NEUTRAL = "#dfe3e8", "#d7ebd3", "#d6e4f5", "#ffffff"
SEG_EDGE, FLOW_EDGE, GREY = "#3f8f3a", "#2a6db0", "#444444"
# Row of each stride, from the bottom; the decoders go from stride 32 down to 2.
ROW = {32: 5, 16: 4, 8: 3, 4: 2, 2: 1}
ENCODER_X, SEG_X, FLOW_X = 1.9, 5.0, 8.1
WIDTH, HEIGHT = 2.1, 0.62


def box(axes, x, y, text, colour, edge=GREY, width=WIDTH):
    """Draw a labelled box around (x, y)."""
    corner = (x - width / 2, y - HEIGHT / 2)
    shape = FancyBboxPatch(
        corner, width, HEIGHT, boxstyle="round,pad=0.02,rounding_size=0.08", fc=colour, ec=edge
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=8.5)


def arrow(axes, start, end, colour=GREY, style="-|>", **kwargs):
    """Draw an arrow between two points."""
    line = {"arrowstyle": style, "color": colour, "lw": 1.2, "shrinkA": 0, "shrinkB": 0, **kwargs}
    axes.annotate("", xy=end, xytext=start, arrowprops=line)


def draw(backbone: str) -> pyplot.Figure:
    """Draw the network with one of `backbones.BACKBONES` as its encoder.

    Args:
        backbone: name of the encoder.

    Returns:
        The figure; its texts hold the channels of each stride and the parameters of each part.
    """
    network = build_flowseg(19, backbone=backbone)
    encoder, decoder = parts(network)
    channels = {stride: encoder.output[f"stride{stride}"].shape[-1] for stride in STRIDES}
    figure, axes = pyplot.subplots(figsize=(10.2, 6.6))
    axes.set(xlim=(0.2, 10.2), ylim=(-0.75, 7.1))
    axes.axis("off")

    axes.add_patch(
        FancyBboxPatch(
            (ENCODER_X - 1.35, 0.5),
            2.7,
            5.25,
            boxstyle="round,pad=0.02,rounding_size=0.12",
            fc="#f6f7f9",
            ec=GREY,
            lw=0.8,
        )
    )
    for x, frame in ((ENCODER_X - 0.55, "frame 1"), (ENCODER_X + 0.55, "frame 2")):
        box(axes, x, 6.6, frame, NEUTRAL, width=0.95)
        arrow(axes, (x, 6.6 - HEIGHT / 2), (x, 5.78))
    axes.text(
        ENCODER_X, 5.54, "one encoder for both frames", ha="center", va="center", fontsize=8.5
    )
    for x, title, colour in (
        (SEG_X, "segmentation decoder", SEG_EDGE),
        (FLOW_X, "flow decoder", FLOW_EDGE),
    ):
        axes.text(x, 6.6, title, ha="center", va="center", fontsize=10, color=colour, weight="bold")

    for stride, row in ROW.items():
        box(axes, ENCODER_X, row, f"stride {stride}: {channels[stride]} ch.", ENCODER)
    flow_steps = {
        16: "2 matching steps, ±3 px",
        8: "matching step, ±3 px",
        4: "matching step, ±2 px",
    }
    box(axes, SEG_X, ROW[32], "1x1 conv + image context", SEG, SEG_EDGE)
    for stride, text in flow_steps.items():
        box(axes, SEG_X, ROW[stride], "upsample, join, refine", SEG, SEG_EDGE)
        box(axes, FLOW_X, ROW[stride], text, FLOW, FLOW_EDGE, width=2.4)
        middle = (SEG_X + WIDTH / 2, FLOW_X - 1.2)
        arrow(axes, (middle[0], ROW[stride] + 0.12), (middle[1], ROW[stride] + 0.12), SEG_EDGE)
        arrow(axes, (middle[1], ROW[stride] - 0.12), (middle[0], ROW[stride] - 0.12), FLOW_EDGE)
    axes.text(
        (SEG_X + FLOW_X) / 2 - 0.05, ROW[16] + 0.35, "exchange", ha="center", fontsize=8, color=GREY
    )
    box(axes, FLOW_X, ROW[2], "Lucas-Kanade step", FLOW, FLOW_EDGE, width=2.4)
    for stride in (32, 16, 8, 4):
        arrow(
            axes,
            (ENCODER_X + WIDTH / 2, ROW[stride]),
            (SEG_X - WIDTH / 2, ROW[stride]),
            linestyle="-",
        )
    for stride in (16, 8, 4):
        # Features of both frames pass under the segmentation column to the flow decoder.
        y = ROW[stride] - 0.45
        axes.plot(
            [ENCODER_X + WIDTH / 2 - 0.3, ENCODER_X + WIDTH / 2 - 0.3, FLOW_X - 0.9],
            [ROW[stride] - HEIGHT / 2, y, y],
            color="#9aa3ad",
            lw=1.0,
        )
        arrow(axes, (FLOW_X - 0.9, y), (FLOW_X - 0.9, ROW[stride] - HEIGHT / 2), "#9aa3ad", lw=1.0)
    arrow(axes, (ENCODER_X + WIDTH / 2, ROW[2]), (FLOW_X - 1.2, ROW[2]), "#9aa3ad", lw=1.0)
    for upper, lower in ((32, 16), (16, 8), (8, 4)):
        arrow(axes, (SEG_X, ROW[upper] - HEIGHT / 2), (SEG_X, ROW[lower] + HEIGHT / 2), SEG_EDGE)
    for upper, lower in ((16, 8), (8, 4), (4, 2)):
        arrow(axes, (FLOW_X, ROW[upper] - HEIGHT / 2), (FLOW_X, ROW[lower] + HEIGHT / 2), FLOW_EDGE)
    box(axes, SEG_X, 0, "seg: logits per class", NEUTRAL, SEG_EDGE)
    box(axes, FLOW_X, 0, "flow (px), confidence", NEUTRAL, FLOW_EDGE, width=2.4)
    arrow(axes, (SEG_X, ROW[4] - HEIGHT / 2), (SEG_X, HEIGHT / 2), SEG_EDGE)
    arrow(axes, (FLOW_X, ROW[2] - HEIGHT / 2), (FLOW_X, HEIGHT / 2), FLOW_EDGE)
    label = {"va": "center", "fontsize": 8, "color": GREY}
    axes.text(SEG_X - 0.1, 0.5, "bilinear x4", ha="right", **label)
    axes.text(FLOW_X + 0.1, 0.5, "convex upsampling x2", ha="left", **label)
    millions = [model.count_params() / 1e6 for model in (encoder, decoder)]
    axes.text(
        5.2,
        -0.62,
        f"{backbone}: encoder {millions[0]:.1f} M parameters, decoders {millions[1]:.1f} M. "
        "Black: features of frame 1. Grey: features of both frames.",
        ha="center",
        fontsize=8.5,
        color=GREY,
    )
    return figure


def main():
    """Write the diagram."""
    args = flags.FLAGS
    # Without a date and with fixed ids, so that the same network gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "flowseg", "svg.fonttype": "path"}):
        figure = draw(args.backbone)
        with files.atomic(args.output) as temporary:
            figure.savefig(temporary, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    flags.DEFINE_enum("backbone", "efficientnet_lite0", BACKBONES, "The encoder.")
    flags.DEFINE_string("output", "docs/network.svg", "SVG file to write.")
    entry.run(main)

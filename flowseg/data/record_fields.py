"""Names of the record fields that hold files; without TensorFlow, which is slow to import."""

# `<name>_format` is the format, if there are several; `flow_noc` and `backward_flow` have that of
# `flow`.
FILES = (
    "image1",
    "image2",
    "flow",
    "flow_noc",
    "backward_flow",
    "occlusion",
    "labels",
    "instances",
    "objects",
)
# All but the first frame, which every record has.
TRUTH = FILES[1:]

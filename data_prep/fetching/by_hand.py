"""Data sets that need an account or a choice of archives: where to go, what to unpack where."""

from data_prep.fetching.data_set import KITTI_LICENCE, DataSet

CITYSCAPES = DataSet(
    title="Cityscapes",
    page="https://www.cityscapes-dataset.com/downloads/",
    licence="Cityscapes' own terms",
    licence_page="https://www.cityscapes-dataset.com/license/",
    terms="For non-commercial purposes such as research and teaching; not to be passed on.",
    reader="data_prep.cityscapes",
    steps=(
        "create an account at https://www.cityscapes-dataset.com/register/ and log in",
        "fetch leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip; for --frames sequence "
        "also leftImg8bit_sequence_trainvaltest.zip, for --truth coarse also gtCoarse.zip",
        "unpack all into {output}, so that it holds leftImg8bit and gtFine",
    ),
)

# Addresses: deeplab2's instructions.
KITTI_STEP = DataSet(
    title="KITTI-STEP",
    page="https://www.cvlibs.net/datasets/kitti/eval_step.php",
    reader="data_prep.kitti_step",
    steps=(
        "at the page, fetch the left colour images of the tracking set (data_tracking_image_2.zip)",
        "fetch https://storage.googleapis.com/gresearch/tf-deeplab/data/kitti-step.tar.gz",
        "unpack both into {output}: training/image_02 of the first, kitti-step/panoptic_maps of "
        "the second",
    ),
    **KITTI_LICENCE,
)

# Address: owner's page, mmflow. FlyingThings3D needs several archives of the page, by choice.
HD1K = DataSet(
    title="HD1K",
    page="http://hci-benchmark.iwr.uni-heidelberg.de/",
    licence="terms of the owner",
    licence_page="http://hci-benchmark.iwr.uni-heidelberg.de/",
    terms="The owner's page has the terms.",
    reader="data_prep.hd1k",
    steps=(
        "fetch hd1k_full_package.zip (about 8 GB) from the page",
        "unpack it into {output}, so that it holds hd1k_input and hd1k_flow_gt",
    ),
)

FLYING_THINGS = DataSet(
    title="FlyingThings3D",
    page="https://lmb.informatik.uni-freiburg.de/resources/datasets/SceneFlowDatasets.en.html",
    licence="terms of the University of Freiburg",
    licence_page="https://lmb.informatik.uni-freiburg.de/resources/datasets/"
    "SceneFlowDatasets.en.html",
    terms="For research only, without any warranty; any commercial use is prohibited.",
    reader="data_prep.flyingthings3d",
    steps=(
        "at the page, choose FlyingThings3D (full or subset): the images (cleanpass, finalpass or "
        "both) and the optical flow",
        "unpack all into {output}",
    ),
)

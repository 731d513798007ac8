"""Tests of the table of data sets: its entries, and the folder that each reader wants."""

import pytest

from data_prep import download
from data_prep.fetching.sets import SETS
from tests.support.http_files import Served, serve
from tests.support.local_sets import listing, local, tar_of, zip_of


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_archives_of_virtual_kitti_are_joined(tmp_path):
    parts = {
        "rgb": ("frames/rgb/Camera_0/rgb_00000.jpg", ".tar"),
        "classSegmentation": ("frames/classSegmentation/Camera_0/classgt_00000.png", ".tar"),
        "forwardFlow": ("frames/forwardFlow/Camera_0/flow_00000.png", ".tar"),
        "backwardFlow": ("frames/backwardFlow/Camera_0/backwardFlow_00001.png", ".tar"),
        "textgt": ("colors.txt", ".tar.gz"),
    }
    bodies = {
        f"vkitti_2.0.3_{kind}{ending}": tar_of(
            {f"Scene01/clone/{name}": kind.encode(), f"Scene20/fog/{name}": b"2"},
            "w:gz" if ending.endswith("gz") else "w",
        )
        for kind, (name, ending) in parts.items()
    }
    with serve(**{name: Served(body) for name, body in bodies.items()}) as (address, _, _):
        download.fetch_set(local("vkitti2", address), tmp_path)
    scenes = ("Scene01/clone", "Scene20/fog")
    assert listing(tmp_path) == sorted(f"{s}/{name}" for s in scenes for name, _ in parts.values())


def test_camvid_is_taken_out_of_the_repository(tmp_path):
    (file,) = SETS["camvid"].files
    folders = ("train", "trainannot", "val", "valannot")
    files = {f"{file.root}/{folder}/a.png": b"1" for folder in folders}
    files |= {f"{file.root.rpartition('/')[0]}/README.md": b"2"}
    # GitHub states no length and no ranges.
    answer = Served(zip_of(files), ranges=False, length="", etag='W/"one"')
    with serve(**{file.name: answer}) as (address, _, _):
        download.fetch_set(local("camvid", address), tmp_path)
    assert listing(tmp_path) == sorted(f"CamVid/{folder}/a.png" for folder in folders)


def test_split_file_of_flyingchairs_lies_beside_the_pairs(tmp_path):
    served = {
        "FlyingChairs.zip": Served(zip_of({"FlyingChairs_release/data/00001_img1.ppm": b"1"})),
        "FlyingChairs_train_val.txt": Served(b"1\n", kind="text/plain"),
    }
    with serve(**served) as (address, _, _):
        download.fetch_set(local("flyingchairs", address), tmp_path)
    assert listing(tmp_path) == [
        "FlyingChairs_release/FlyingChairs_train_val.txt",
        "FlyingChairs_release/data/00001_img1.ppm",
    ]


def test_davis_2016_and_2017_are_not_mixed(tmp_path):
    files = {f"DAVIS/{name}/480p/bear/00000": b"1" for name in ("JPEGImages", "Annotations")}
    served = {SETS[name].files[0].name: Served(zip_of(files)) for name in ("davis", "davis2016")}
    with serve(**served) as (address, _, _):
        download.fetch_set(local("davis", address), tmp_path)
        with pytest.raises(ValueError, match="DAVIS/JPEGImages/480p: exists, and was not fetched"):
            download.fetch_set(local("davis2016", address), tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_table_is_complete(name):
    data_set = SETS[name]
    for text in (data_set.title, data_set.licence, data_set.terms):
        assert text
    for address in (data_set.page, data_set.licence_page):
        assert address.startswith(("https://", "http://"))
    assert bool(data_set.files) != bool(data_set.steps)
    for file in data_set.files:
        assert file.url.startswith("https://") and file.holds
        assert not (file.size and file.about)
        algorithm, _, digits = file.checksum.partition(":")
        length = {"md5": 32, "sha256": 64, "": 0}[algorithm]
        assert len(digits) == length and set(digits) <= set("0123456789abcdef")

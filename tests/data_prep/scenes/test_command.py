"""Tests of the command of synthetic worlds: output layout, reproducibility and resuming."""

import json
import shutil

import cv2
import numpy as np
import pytest

from data_prep import kitti
from data_prep.scenes import farm, store
from flowseg import files
from flowseg.data import flow_io, labels, records
from tests.conftest import ROOT, run_command
from tests.support.scene_folders import (
    FLOW,
    LABELS,
    SIZE,
    as_flags,
    content,
    find_photos_of,
    pictures,
)


@pytest.fixture(scope="module", params=store.WORLDS)
def world(request, photos):
    """A world as keywords of `write_pairs`."""
    return {"world": request.param, "photos": photos if request.param == "layers" else None}


@pytest.fixture(scope="module")
def generated(world, tmp_path_factory):
    """(folder of four pairs from two processes, stdout of the command). Must not be modified."""
    output = tmp_path_factory.mktemp("generated") / "new" / world["world"]
    done = run_command("data_prep.scenes", *as_flags(**world), "--workers=2", "--output", output)
    assert done.stderr == ""
    return output, done.stdout


def test_layout(generated, world):
    output, stdout = generated
    names = {
        *(f"{FLOW}/image_2/{k:06d}_{n}.png" for k in range(4) for n in (10, 11)),
        *(f"{FLOW}/flow_{kind}/{k:06d}_10.png" for k in range(4) for kind in ("occ", "noc")),
    }
    if world["world"] == "street":
        names |= {f"{LABELS}/{d}/{k:06d}_10.png" for k in range(4) for d in ("image_2", "semantic")}
        image = f"image_2/{2:06d}_10.png"
        assert (output / FLOW / image).samefile(output / LABELS / image)
    assert set(content(output)) == {"scenes.json", *names}
    plan = json.loads((output / "scenes.json").read_text())
    assert plan["seed"] == 0 and str(ROOT) not in str(plan) and "/" not in str(plan)
    for part in ("4 pairs in", "pairs/s", "per core", "bytes per pair", "MiB"):
        assert part in stdout


def test_files_contain_the_rendered_pair(generated, world):
    output, _ = generated
    job = farm.Job(
        output, world=world["world"], seed=0, **SIZE, effects=True, photos=find_photos_of(world)
    )
    pair = farm._make_pair(job, 3)
    for name, image in (("000003_10", pair.image1), ("000003_11", pair.image2)):
        assert np.array_equal(cv2.imread(f"{output}/{FLOW}/image_2/{name}.png"), image[..., ::-1])
    for kind, known in (("occ", pair.valid), ("noc", pair.visible)):
        flow = flow_io.read_flow(output / FLOW / f"flow_{kind}/000003_10.png")
        assert np.array_equal(flow[..., 2] > 0, known)
        assert np.abs(flow[..., :2] - pair.flow)[known].max() <= 1 / 128
    if world["world"] == "street":
        ids = cv2.imread(f"{output}/{LABELS}/semantic/000003_10.png", cv2.IMREAD_UNCHANGED)
        assert np.array_equal(ids, pair.labels)
        assert set(np.unique(ids)) <= set(labels.KNOWN_IDS["cityscapes"])


def test_count_and_processes_do_not_change_pairs(generated, world, tmp_path, capsys):
    store.write_pairs(tmp_path, count=2, processes=1, **SIZE, **world)
    assert len(content(tmp_path)) < len(content(generated[0]))
    store.write_pairs(tmp_path, count=4, processes=1, **SIZE, **world)
    assert "resuming, 2 of 4 pairs" in capsys.readouterr().out
    assert content(tmp_path) == content(generated[0])
    before = {path: path.stat().st_mtime_ns for path in pictures(tmp_path)}
    store.write_pairs(tmp_path, count=3, **SIZE, **world)
    assert "all 3 pairs are already finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in pictures(tmp_path)}


def test_lost_files_are_rewritten(generated, world, tmp_path, capsys):
    output = shutil.copytree(generated[0], tmp_path / "copy")
    lost = [f"{FLOW}/image_2/000000_11.png", f"{FLOW}/flow_noc/000002_10.png"]
    if world["world"] == "street":
        lost[0] = f"{LABELS}/image_2/000000_10.png"
    for name in lost:
        (output / name).unlink()
        files.write(output / name.replace("0000", ".partial-0000"), "half")
    # A power failure may leave an empty file of the last pair.
    (output / FLOW / "image_2/000003_10.png").write_bytes(b"")
    finished_file = output / FLOW / "flow_occ/000001_10.png"
    before = finished_file.stat().st_mtime_ns
    store.write_pairs(output, count=4, **SIZE, **world)
    assert "resuming, 1 of 4 pairs" in capsys.readouterr().out
    assert content(output) == content(generated[0]) and before == finished_file.stat().st_mtime_ns


def test_kitti_converter_accepts_the_folder(generated, world, tmp_path):
    index = kitti.convert([generated[0]], tmp_path, val_fraction=0)
    assert index["records"] == {"train": 4, "val": 0} and not index["left_out"]
    for _, fields in records.read_shard(tmp_path / "train-00000-of-00001.tfrecord"):
        name = f"{fields['frame_id'].decode()}.png"
        assert fields["flow"] == (generated[0] / FLOW / "flow_occ" / name).read_bytes()
        assert fields["image2"] and fields["flow_noc"]
        assert bool(fields["labels"]) == (world["world"] == "street")
        assert (fields["height"], fields["width"]) == (64, 96)

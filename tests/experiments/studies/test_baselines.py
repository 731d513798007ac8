import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep import camvid, folder, kitti, middlebury
from experiments.studies import baselines
from flowseg.data.labels import CAMVID, CITYSCAPES
from flowseg.scoring import evaluation, frame_scores
from tests.conftest import run_command
from tests.data import test_clips
from tests.experiments.studies.test_compare_sets import write_pair
from tests.support import markdown


def texture(height, width, seed=0):
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))


def moved(flow, seed, height=96, width=160):
    """Two crops of one texture; in the second it has moved by whole pixels (u, v)."""
    wide, (u, v) = texture(height + 40, width + 40, seed), flow
    cuts = ((20, 20), (20 - v, 20 - u))
    return [wide[y : y + height, x : x + width] for y, x in cuts]


def convert(folder, output):
    """Records of the folder, as the command writes them."""
    kitti.convert([folder], output, val_fraction=0)
    return sorted(map(str, output.glob("train-*")))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pair 0 moves by (3, 4), known everywhere; pair 1 by (0, 2), known in the upper half."""
    folder = tmp_path_factory.mktemp("moved")
    everywhere = np.ones((96, 160), bool)
    upper, quarter = everywhere.copy(), everywhere.copy()
    upper[48:], quarter[24:] = False, False
    for number, (flow, known, visible) in enumerate(
        (((3, 4), everywhere, quarter), ((0, 2), upper, upper))
    ):
        truth = np.full((96, 160, 2), flow, np.float32)
        write_pair(folder, number, moved(flow, number), truth, known, visible)
    return convert(folder, tmp_path_factory.mktemp("records"))


def test_zero_flow_by_hand(files):
    per_pair, pooled, _ = baselines.score_flow(files, CITYSCAPES)
    first, second = (pair["zero"] for pair in per_pair.values())
    assert first["flow/aepe"] == pytest.approx(5) and first["flow/fl_all"] == 100
    # An error of 2 px is not an outlier, even if it is more than 5 %.
    assert second["flow/aepe"] == pytest.approx(2) and second["flow/fl_all"] == 0
    expected = {
        "flow/aepe": (5 + 2 / 2) / 1.5,
        "flow/fl_all": 100 / 1.5,
        "flow/fl_all_per_image": 50,
        "flow/aepe_noc": (5 / 4 + 2 / 2) / 0.75,
        "flow/fl_all_noc": 100 / 3,
        "flow/fl_all_per_image_noc": 50,
        "flow/aepe_0_10": (5 + 2 / 2) / 1.5,
        "flow/fl_0_10": 100 / 1.5,
        "flow/aepe_occluded": 5,
        "flow/fl_occluded": 100,
    }
    assert pooled["zero"].pop("seconds_per_pair") >= 0
    assert pooled["zero"] == pytest.approx(expected)


def test_images_and_truth_of_a_video_belong_together(tmp_path):
    # The records are shuffled, and the last frame of the video has no flow.
    frames = test_clips.drive(tmp_path, "a", 6)
    shuffled = [frames[i] for i in (3, 0, 5, 2, 4, 1)]
    shards = test_clips.convert(shuffled, tmp_path / "records")
    pairs = list(baselines.pairs_with_flow(shards, CITYSCAPES))
    assert [name for name, _, _ in pairs] == [f"records/a_{n}" for n in range(5)]
    for _, greys, frame in pairs:
        for key, grey in zip(("image1", "image2"), greys, strict=True):
            luma = frame[key] @ [0.299, 0.587, 0.114]
            assert np.abs(grey - luma).max() <= 1 and frame["flow"][..., 2].all()


def test_dis_estimates_the_motion(files):
    for preset in baselines.PRESETS:
        per_pair, pooled, _ = baselines.score_flow(files, CITYSCAPES, preset)
        assert pooled["dis"]["flow/aepe_noc"] < 0.3, preset
        assert pooled["dis"]["seconds_per_pair"] > 0
        times = [pair["dis"]["seconds_per_pair"] for pair in per_pair.values()]
        assert pooled["dis"]["seconds_per_pair"] == pytest.approx(np.mean(times))
    # (u, v), not (v, u).
    flow = baselines.dis_flow(*(image[..., 1] for image in moved((3, 4), 0)))
    assert flow.dtype == np.float32
    np.testing.assert_allclose(np.median(flow, (0, 1)), [3, 4], atol=0.1)


def test_zero_flow_scores_as_in_evaluate(kitti_records):
    """For dense, sparse and missing ground truth, with foreground from the object map."""
    files = sorted(map(str, kitti_records.glob("*.tfrecord")))

    def no_motion(frame):
        return None, np.zeros((*frame["seg"].shape, 2))

    counts, summary = evaluation.count(files, CITYSCAPES, no_motion)
    _, pooled, sources = baselines.score_flow(files, CITYSCAPES)
    assert pooled["zero"].pop("seconds_per_pair") >= 0
    assert pooled["zero"] == pytest.approx(frame_scores.scores(counts))
    assert {"flow/fl_fg", "flow/fl_bg"} < set(pooled["dis"])
    assert sources == summary["foreground"] == {"object map": 4}


def test_command(files, tmp_path):
    done = run_command(
        "experiments.studies.baselines",
        "--records",
        files[0],
        "--metrics_json",
        tmp_path / "m.json",
        "--preset",
        "fast",
    )
    rows = markdown.rows(done.stdout)
    assert rows[0][:4] == ["pair", "flow", "AEPE (px)", "Fl-all (%)"]
    assert rows[1][:4] == [f"{Path(files[0]).parent.name}/000000_10", "zero", "5.000", "100.000"]
    assert rows[7][:4] == ["all 2", "zero", "4.000", "66.667"]
    scores = json.loads((tmp_path / "m.json").read_text())
    assert scores["zero/flow/aepe"] == pytest.approx(4)
    assert 0 <= scores["dis/flow/aepe"] < 0.5 and 0 <= scores["farneback/flow/aepe"] < 1
    assert scores["flow/aepe"] == scores["dis/flow/aepe"] and "flow/fl_all_per_image_noc" in scores
    help_text = run_command("experiments.studies.baselines", "--help").stdout
    assert all(f"--{name}:" in help_text for name in ("records", "preset", "metrics_json"))


def test_no_noc_scores_without_flow_noc(tmp_path):
    write_pair(
        tmp_path,
        0,
        moved((1, 0), 0),
        np.full((96, 160, 2), (1, 0), np.float32),
        known=np.ones((96, 160), bool),
    )
    files = convert(tmp_path, tmp_path / "records")
    per_pair, pooled, sources = baselines.score_flow(files, CITYSCAPES)
    assert not any("noc" in name for name in pooled["dis"])
    rows = markdown.rows(baselines.table(per_pair, pooled))
    keys = ("fl_bg", "fl_fg", "aepe_noc", "fl_all_noc")
    without = [rows[0].index(baselines.COLUMNS[f"flow/{key}"]) for key in keys]
    assert len(rows) == 1 + 6
    assert all([i for i, cell in enumerate(row) if cell == "-"] == without for row in rows[1:])
    assert not sources


def test_errors(kitti_folder, tmp_path):
    labels_only = convert(kitti_folder / "data_semantics", tmp_path / "labels")
    assert baselines.score_flow(labels_only, CITYSCAPES) == ({}, {}, {})
    assert baselines.score_labels(labels_only, CITYSCAPES) == ({}, 0)
    small = np.zeros((8, 8, 3), np.uint8)
    write_pair(tmp_path, 0, (small, small), np.ones((8, 8, 2)), np.ones((8, 8), bool))
    with pytest.raises(ValueError, match="DIS cannot take frames of 8x8 px"):
        baselines.score_flow(convert(tmp_path, tmp_path / "small"), CITYSCAPES)
    write_pair(tmp_path / "k", 0, moved((3, 4), 0), np.ones((96, 160, 2)), np.ones((96, 160), bool))
    twice = convert(tmp_path / "k", tmp_path / "a/same") + convert(
        tmp_path / "k", tmp_path / "b/same"
    )
    with pytest.raises(ValueError, match="same/000000_10: two pairs have this name"):
        baselines.score_flow(twice, CITYSCAPES)
    done = run_command("experiments.studies.baselines", "--records", tmp_path / "nowhere", ok=False)
    assert "no record files match" in done.stderr


def test_real_kitti(samples, tmp_path):
    files = convert(samples / "kitti", tmp_path)
    per_pair, pooled, sources = baselines.score_flow(files, CITYSCAPES)
    for name, dis, zero in (
        ("000002_10", (0.97, 6.7), 12.9),
        ("000003_10", (1.99, 14.6), 14.5),
    ):
        scores = per_pair[f"{tmp_path.name}/{name}"]["dis"]
        assert scores["flow/aepe"] == pytest.approx(dis[0], abs=0.1)
        assert scores["flow/fl_all"] == pytest.approx(dis[1], abs=0.6)
        assert per_pair[f"{tmp_path.name}/{name}"]["zero"]["flow/aepe"] == pytest.approx(
            zero, abs=0.1
        )
    assert pooled["dis"]["flow/aepe_noc"] < pooled["dis"]["flow/aepe"]
    # The samples have labels and no object map.
    assert sources == {"labels": 2}
    assert pooled["dis"]["flow/fl_bg"] == pytest.approx(11.6, abs=0.6)
    assert pooled["dis"]["flow/fl_fg"] == pytest.approx(5.5, abs=0.6)


def test_real_flo_records(samples, tmp_path):
    middlebury.convert([samples / "middlebury"], tmp_path, val_fraction=0)
    files = sorted(map(str, tmp_path.glob("train-*")))
    per_pair, pooled, _ = baselines.score_flow(files, CITYSCAPES)
    assert len(per_pair) == 3 and pooled["dis"]["flow/aepe"] < 0.5 < pooled["zero"]["flow/aepe"]


def test_labels_of_the_previous_frame_by_hand(tmp_path):
    """Three frames that move by (6, 4), with the labels at known positions."""
    wide = texture(200, 300)
    ids = np.full((200, 300), 7, np.uint8)
    ids[60:90, 100:140] = 26
    for kind in ("images", "masks"):
        (tmp_path / "mine" / kind).mkdir(parents=True)
    for k in range(3):
        y, x = 40 - 4 * k, 60 - 6 * k
        cut = np.s_[y : y + 96, x : x + 160]
        cv2.imwrite(str(tmp_path / f"mine/images/v_{k}.png"), wide[cut])
        cv2.imwrite(str(tmp_path / f"mine/masks/v_{k}.png"), ids[cut])
    settings = {"val_fraction": 0, "label_set": "cityscapes", "numbering": "cityscapes"}
    folder.convert([tmp_path / "mine"], tmp_path / "records", **settings)
    files = sorted(map(str, (tmp_path / "records").glob("train-*")))
    scores, frames = baselines.score_labels(files, CITYSCAPES)
    # A car of 30x40 px, moved by 4 rows and 6 columns: 26x34 px of it overlap.
    overlap = 26 * 34
    expected = 100 * overlap / (2 * 30 * 40 - overlap)
    assert frames == 2
    assert scores["previous"]["seg/iou/car"] == pytest.approx(expected)
    assert scores["previous moved"]["seg/iou/car"] > 90


def test_real_video_labels(samples, tmp_path):
    for kind in ("train", "trainannot", "val", "valannot"):
        (tmp_path / "camvid" / kind).mkdir(parents=True)
        for path in sorted((samples / "camvid" / kind).iterdir())[:6]:
            shutil.copy(path, tmp_path / "camvid" / kind)
    camvid.convert([tmp_path / "camvid"], tmp_path)
    scores, frames = baselines.score_labels(sorted(map(str, tmp_path.glob("val-*"))), CAMVID)
    assert frames == 5
    assert 50 < scores["previous"]["seg/miou"] < scores["previous moved"]["seg/miou"]

import json

import cv2
import numpy as np
import pytest

from data_prep import kitti
from experiments.studies import compare_sets, set_measures
from flowseg.data import flow_io
from tests.conftest import run_command
from tests.support import markdown

ROAD, CAR, SKY, UNLABELED = 7, 26, 23, 0


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def write_labels(folder, number, image, ids):
    training = folder / "data_semantics" / "training"
    write(training / "image_2" / f"{number:06d}_10.png", image[..., ::-1])
    write(training / "semantic" / f"{number:06d}_10.png", ids.astype(np.uint8))


def write_pair(folder, number, images, flow, known, visible=None):
    """Write one frame of data_scene_flow; without `visible` there is no flow_noc."""
    training = folder / "data_scene_flow" / "training"
    for k, image in zip((10, 11), images, strict=True):
        write(training / "image_2" / f"{number:06d}_{k}.png", image[..., ::-1])
    for kind, mask in (("flow_occ", known), ("flow_noc", visible)):
        if mask is not None:
            (training / kind).mkdir(parents=True, exist_ok=True)
            png = flow_io.encode_kitti_flow(flow, mask)
            (training / kind / f"{number:06d}_10.png").write_bytes(png)


def numbers_of(folder, **settings):
    numbers, _ = compare_sets.compare({"set": [folder]}, **settings)
    assert list(numbers["set"]) == list(set_measures.UNITS)
    return numbers["set"]


def expect(numbers, **expected):
    """`flow__mean=3` stands for numbers["flow/mean"]; None stands for NaN."""
    for name, value in expected.items():
        value = np.nan if value is None else value
        name = name.replace("__", "/")
        np.testing.assert_allclose(numbers[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def grey(height=30, width=40, value=90):
    return np.full((height, width, 3), value, np.uint8)


def test_flow_numbers(tmp_path):
    flow, known = np.zeros((30, 40, 2), np.float32), np.ones((30, 40), bool)
    # Twice these at a width of 80: speeds of 10, 60 and 20 px, of 400, 400 and 200 pixels.
    flow[:10], flow[10:20], flow[20:] = (3, 4), (0, -30), (6, -8)
    known[20:, 20:] = False
    visible = known.copy()
    visible[:5, :20] = False
    write_pair(tmp_path, 0, (grey(), grey()), flow, known, visible)
    numbers = numbers_of(tmp_path, width=80)
    expect(
        numbers,
        frames=1,
        frames_with_flow=1,
        frames_with_labels=0,
        flow__known=100 * 1000 / 1200,
        flow__occluded=10,
        flow__all__mean=32,
        flow__all__over_40px=40,
        flow__all__abs_u=(400 * 6 + 200 * 12) / 1000,
        flow__all__abs_v=(400 * 8 + 400 * 60 + 200 * 16) / 1000,
        flow__all__top=10,
        flow__all__middle=60,
        flow__all__bottom=20,
        flow__not_sky__mean=None,
        class__road=None,
        own__edge=None,
    )
    # Percentiles to the histogram's step.
    percentiles = [numbers[f"flow/all/p{q}"] for q in set_measures.PERCENTILES]
    np.testing.assert_allclose(percentiles, [10, 10, 20, 60, 60, 60], atol=0.01)

    ids = np.full((30, 40), ROAD)
    ids[10:20], ids[20:] = SKY, UNLABELED
    write_labels(tmp_path, 0, grey(), ids)
    write_labels(tmp_path, 1, grey(), np.full((30, 40), CAR))
    numbers = numbers_of(tmp_path, width=80)
    expect(
        numbers,
        frames=2,
        frames_with_flow=1,
        frames_with_labels=2,
        flow__all__mean=32,
        # Pixels without a class are excluded: they may be sky.
        flow__not_sky__mean=(400 * 10 + 200 * 20) / 600,
        flow__not_sky__over_40px=0,
        flow__not_sky__middle=None,
        class__void=100 * 400 / 2400,
        class__road=20,
        class__sky=20,
        class__car=60,
        class__bus=0,
        occurs__road=50,
        occurs__bus=0,
    )


def test_outward_is_away_from_kittis_principal_point():
    y, x = np.mgrid[:375, :1242].astype(np.float32)
    radial = np.dstack([x - 609.56, y - 172.85])
    half, everywhere = np.zeros((375, 1242, 2), np.float32), np.ones((375, 1242), bool)
    half[..., 0] = 1
    shares = []
    for flow in (radial, -radial, half, 0 * half):
        measures = {"frames": 1, "flows": 1, "places": 1, "all": 0}
        measures["all"] = set_measures.flow_sums(flow, everywhere, 1.0)
        summary = set_measures.summarise([(measures, {"image/luma": 0.0})])
        shares.append(summary["flow/all/outward"])
    # Nothing moves in the last, so its share is NaN. 632 columns are to the right of 609.56.
    np.testing.assert_allclose(shares, [100, 0, 100 * 632 / 1242, np.nan], rtol=1e-4)


def test_class_with_few_pixels_does_not_occur(tmp_path):
    ids = np.full((100, 100), ROAD)
    ids[0, :5], ids[1, :4] = SKY, CAR
    write_labels(tmp_path, 0, grey(100, 100), ids)
    numbers = numbers_of(tmp_path)
    expect(numbers, occurs__road=100, occurs__sky=100, occurs__car=0, class__car=0.04)


def test_image_numbers(tmp_path):
    image, ids = grey(32, 40), np.full((32, 40), ROAD)
    # Luma 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124 and 10.
    image[:, :20], image[:, 20:], ids[:, 20:] = (200, 100, 50), (10, 10, 10), CAR
    write_labels(tmp_path, 0, image, ids)
    numbers, common = compare_sets.compare({"set": [tmp_path]}, image_width=20)
    assert common == 20
    expect(
        numbers["set"],
        image__red=105,
        image__green=55,
        image__blue=30,
        image__luma=67,
        image__luma_std=57,
        image__luma_spread=0,
        image__dark=50,
        image__bright=0,
        # (200 - 50) / 200 in 8 bits, on half the frame.
        image__saturation=191 / 255 * 50,
        own__dx=114 / 39,
        own__dy=0,
        # In one of five blocks in a row, the border is in the middle.
        own__contrast=57 / 5,
        # One step of three columns near the border.
        own__edge=114 / 3,
        own__inside=0,
        common__dx=114 / 19,
        common__edge=114 / 3,
        pair__ratio=None,
    )
    # A border to unlabelled pixels does not count.
    write_labels(tmp_path, 0, image, np.where(ids == CAR, UNLABELED, ids))
    expect(numbers_of(tmp_path), own__edge=None, own__inside=0)


def test_brightness_varies_between_frames(tmp_path):
    for number, value in enumerate((80, 100)):
        write_labels(tmp_path, number, grey(value=value), np.full((30, 40), ROAD))
    expect(numbers_of(tmp_path), image__luma=90, image__luma_spread=10, image__luma_std=0)
    expect(numbers_of(tmp_path, limit=1), frames=1, image__luma=80, own__slope=None)


@pytest.mark.parametrize("exponent", [0, -2, -3])
def test_slope_of_noise_with_a_known_spectrum(exponent):
    size = (128, 416)
    radius = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None])
    radius[0, 0] = np.inf if exponent else 1
    slopes = []
    # The slope of one image is uncertain by 0.1, because it has few large waves.
    for seed in range(8):
        noise = np.fft.rfft2(np.random.default_rng(seed).normal(size=size))
        picture = np.fft.irfft2(noise * radius ** (exponent / 2), size)
        slopes.append(set_measures.spectrum_slope(picture))
    assert np.mean(slopes) == pytest.approx(exponent, abs=0.08)


def test_differences_before_and_after_warping(tmp_path):
    # A ramp of 2 a px that moves by (5.5, -2) and gets brighter by 3.
    x = np.arange(100)
    first, second = (np.repeat((2 * row + 20)[None, :, None], 30, 0) for row in (x, x - 4))
    images = [np.repeat(ramp, 3, -1).astype(np.uint8) for ramp in (first, second)]
    flow, known = np.full((30, 100, 2), (5.5, -2), np.float32), np.ones((30, 100), bool)
    visible = known.copy()
    visible[:2], visible[:, 94:] = False, False
    write_pair(tmp_path, 0, images, flow, known, visible)
    expect(numbers_of(tmp_path), pair__unwarped=8, pair__warped=3, pair__ratio=8 / 3)
    # A perfect pair has no ratio; without flow_noc all differences are NaN.
    write_pair(tmp_path, 0, [images[0]] * 2, 0 * flow, known, visible)
    expect(numbers_of(tmp_path), pair__unwarped=0, pair__warped=0, pair__ratio=None)
    write_pair(tmp_path / "occ", 0, images, flow, known)
    expect(numbers_of(tmp_path / "occ"), pair__unwarped=None, flow__occluded=None)


def test_pair_values_are_medians():
    measures = [({"frames": 1}, {"image/luma": 0.0, "pair/ratio": x}) for x in (2, 10, np.nan, 3)]
    assert set_measures.summarise(measures)["pair/ratio"] == 3


def test_textures_are_compared_at_the_narrowest_frame(tmp_path):
    for name, width in (("a", 40), ("b", 64)):
        write_labels(tmp_path / name, 0, grey(30, width), np.full((30, width), ROAD))
    sets = {name: [tmp_path / name] for name in "ab"}
    assert compare_sets.compare(sets)[1] == 40
    assert compare_sets.compare(sets, image_width=20)[1] == 20


def test_command(kitti_folder, tmp_path):
    labels = kitti_folder / "data_semantics"
    done = run_command(
        "experiments.studies.compare_sets",
        "--set",
        f"street={kitti_folder}",
        "--set",
        f"seg={labels}",
        "--json",
        tmp_path / "n.json",
        "--picture",
        tmp_path / "p.png",
        "--limit",
        2,
    )
    rows = markdown.rows(done.stdout)
    assert rows[0] == ["", "unit", "street", "seg"]
    assert ["frames", "", "2", "2"] in rows
    assert any(row[:2] == ["flow/all/mean", "px"] and row[3] == "-" for row in rows)
    assert "common/ is at 160 px" in done.stdout
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert numbers["seg"]["flow/all/mean"] is None and numbers["street"]["flow/all/mean"] > 0
    assert numbers["seg"]["class/road"] == numbers["street"]["class/road"]
    picture = cv2.imread(str(tmp_path / "p.png"))
    assert picture.shape[1] <= 640
    help_text = run_command("experiments.studies.compare_sets", "--help").stdout
    assert all(f"--{name}:" in help_text for name in ("set", "limit", "picture", "image_width"))


def test_errors(kitti_folder, tmp_path):
    for text in ("street", "=DIR", "a=", "a=b,,c"):
        with pytest.raises(ValueError, match="NAME=DIR"):
            compare_sets.parse_sets([text])
    with pytest.raises(ValueError, match="two sets named 'a'"):
        compare_sets.parse_sets(["a=b", "a=c"])
    assert compare_sets.parse_sets(["a=b,c", "d=e=f"]) == {"a": ["b", "c"], "d": ["e=f"]}
    with pytest.raises(ValueError, match="no such folder"):
        compare_sets.compare({"set": [tmp_path / "nowhere"]})
    write_labels(tmp_path, 0, grey(), np.full((30, 44), ROAD))
    with pytest.raises(ValueError, match="is 30x44, but 000000_10.png is 30x40"):
        compare_sets.compare({"set": [tmp_path]})
    frame = kitti.find_frames([tmp_path])[0]
    frame.files["image1"].write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match="not a PNG file"):
        compare_sets.compare({"set": [tmp_path]})
    done = run_command("experiments.studies.compare_sets", "--set", "street", ok=False)
    assert "must be NAME=DIR" in done.stderr


def test_real_kitti(samples):
    pairs, extra = samples / "kitti", samples / "kitti_semantics_extra"
    numbers, common = compare_sets.compare({"pairs": [pairs], "all": [pairs, extra]})
    assert common == 416
    values = numbers["pairs"]
    assert values["frames"] == 2 and numbers["all"]["frames"] == 20
    # The AEPE of zero flow is the mean speed: 12.86 and 14.48 px, for similar numbers of points.
    assert values["flow/all/mean"] == pytest.approx(13.65, abs=0.05)
    assert values["flow/all/p50"] == pytest.approx(10.0, abs=0.1)
    assert values["flow/occluded"] == pytest.approx(5.2, abs=0.2)
    assert values["flow/known"] == pytest.approx(20.9, abs=0.2)
    assert 2.3 < values["pair/ratio"] < 3.0
    assert values["class/building"] == pytest.approx(30.6, abs=0.2)
    assert values["occurs/rider"] == 100
    assert -2.8 < values["common/slope"] < -2.0
    assert values["common/edge"] > 1.5 * values["common/inside"]
    assert numbers["all"]["class/road"] == pytest.approx(24.4, abs=0.2)
    assert numbers["all"]["flow/all/mean"] == values["flow/all/mean"]

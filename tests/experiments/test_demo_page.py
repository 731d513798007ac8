"""Demo page, clip of a drive, and the benchmark of scenes."""

import json
from itertools import pairwise

import cv2
import numpy as np

from data_prep.scenes import farm, street
from experiments import demo_page
from experiments.costs import scene_benchmark
from flowseg.media import drawing, video_output


def test_animation_has_the_frames_of_the_video(tmp_path):
    colours = (40, 120, 200)
    with video_output.video_writer(tmp_path / "video.mp4", 5) as write:
        for colour in colours:
            write(np.full((64, 96, 3), (colour, 90, 60), np.uint8))
    demo_page.animate(tmp_path / "video.mp4", tmp_path / "video.webp", width=48)
    read, animation = cv2.imreadanimation(str(tmp_path / "video.webp"))
    assert read and [frame.shape[:2] for frame in animation.frames] == [(32, 48)] * 3
    assert list(animation.durations) == [200] * 3
    # OpenCV's frames are BGR: red, which grows, is the third channel.
    for frame, colour in zip(animation.frames, colours, strict=True):
        assert abs(float(frame[..., 2].mean()) - colour) < 12


def test_page_has_scores_and_pictures(tmp_path):
    scores = {"seg/miou": 41.26, "flow/aepe": 2.04, "seg/iou/car": None}
    (tmp_path / "metrics.json").write_text(json.dumps(scores))
    for name in ("b.png", "a.png"):
        drawing.write_png(tmp_path / "pictures" / name, np.zeros((8, 8, 3), np.uint8))
    demo_page.write_page(tmp_path, "A <title>", "more & less", "run-x")
    text = (tmp_path / "index.html").read_text()
    assert "<td>41.3 %</td>" in text and "<td>2.0 px</td>" in text and "% IoU" not in text
    assert text.index("pictures/a.png") < text.index("pictures/b.png")
    assert "A &lt;title&gt;" in text and "more &amp; less" in text
    assert "<code>run-x/</code>" in text
    assert "video.webp" not in text and "roads.png" not in text and "KITTI" not in text
    (tmp_path / "video.webp").write_bytes(b"")
    (tmp_path / "roads.png").write_bytes(b"")
    demo_page.write_page(tmp_path, "t", "t", "run-x")
    text = (tmp_path / "index.html").read_text()
    assert "video.webp" in text and "roads.png" in text and "KITTI 2015, frame 000003_10" in text


def test_film_continues_the_pair(tmp_path):
    """The first two frames show the scene of the pair, except for parts that the pair omits."""
    seed, index = 3, 1
    film = list(street.film(index, seed, 96, 312, 4))
    assert [frame.shape for frame in film] == [(96, 312, 3)] * 4
    pair = street.make_pair(index, seed, 96, 312, effects=False)
    for frame, image in zip(film[:2], (pair.image1, pair.image2), strict=True):
        # Textures depend on the number of parts, so colours differ slightly.
        assert np.corrcoef(frame.mean(-1).ravel(), image.mean(-1).ravel())[0, 1] > 0.7
    assert np.abs(pair.flow).max() > 1, "the test needs a drive that moves"
    steps = [np.abs(np.subtract(a, b, dtype=float)).mean() for a, b in pairwise(film)]
    assert min(steps) > 1


def test_scene_benchmark_accounts_for_all_time(tmp_path):
    job = farm.Job(tmp_path, "street", 0, 48, 96, True, None)
    rate, shares, size = scene_benchmark.measure(job, 2)
    assert rate > 0 and abs(sum(shares.values()) - 100) < 1e-6
    assert min(shares.values()) > 0, shares  # the functions of every stage were found
    files = [path for path in tmp_path.rglob("*.png") if not path.name.startswith("000002")]
    # The second name of image1 is the same file.
    assert size * 2 == sum(
        path.stat().st_size for path in files if "semantics/training/image_2" not in str(path)
    )

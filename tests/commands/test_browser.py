"""Pages in a headless Chromium, as a user sees them (Debian: apt-get install chromium).

`make test-all` runs these tests; they need the extras `demo` and `browser`.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from flowseg.data.flow_io import read_flow
from flowseg.media.frames import open_frames
from flowseg.media.video import VIDEO_SUFFIXES
from flowseg.media.video_output import FORMATS, video_writer
from tests.conftest import ROOT, run_command

pytestmark = pytest.mark.browser
PAIR = [ROOT / "experiments/pictures" / f"kitti_pair_{n}.png" for n in (1, 2)]
# Timeout in ms; the first prediction at a new size takes longest.
TIMEOUT = 90_000


@pytest.fixture(scope="module")
def browser():
    """A running Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root, the user of containers.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(browser):
    """An empty page with a long timeout that records the hosts of its requests in `tab.hosts`."""
    tab = browser.new_page(viewport={"width": 1400, "height": 1000})
    tab.set_default_timeout(TIMEOUT)
    tab.hosts = set()
    tab.on("request", lambda request: tab.hosts.add(request.url.split("/")[2]))
    yield tab
    tab.close()


@contextmanager
def served(*command, stop=signal.SIGINT, **environment):
    """Run `python -m COMMAND --port PORT`, yield its address when it is ready, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *map(str, command), "--port", str(port)]
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert server.poll() is None, server.stdout.read()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(f"{address} does not respond")
        yield address
    finally:
        # As Ctrl-C or a service manager does: then the demo removes its folder.
        server.send_signal(stop)
        output, _ = server.communicate(timeout=60)
    assert server.returncode in (0, -stop), output


# A proxy that does not respond, and proxy exceptions that do not include this machine.
PROXIES = {
    **dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "example.org"),
}
DEMO = ("flowseg.demo", "--weights", "pretrained", "--frames", 4)


@pytest.fixture(scope="module")
def demo():
    """Address of the demo page with the pretrained network."""
    with served(*DEMO, **PROXIES) as address:
        yield address


def predict(tab, which=0):
    """Press the button of a tab and return the summary that appears."""
    tab.get_by_role("button", name="Predict").nth(which).click()
    summary = tab.get_by_label("Summary").nth(which)
    summary.evaluate(
        "(box, timeout) => new Promise((done, failed) => {"
        "  setTimeout(() => failed('no result'), timeout);"
        "  setInterval(() => box.value && done(), 100) })",
        TIMEOUT,
    )
    return summary.input_value()


def drop(tab, which, path):
    """Choose a file for the n-th file input, and wait until it is uploaded."""
    tab.locator("input[type=file]").nth(which).set_input_files(str(path))
    tab.wait_for_load_state("networkidle")


def write_clip(path, count):
    """Write a street that shifts to the right, at 8 frames per second."""
    image = cv2.imread(str(PAIR[0]))[:128, :416, ::-1]
    with video_writer(path, 8) as write:
        for n in range(count):
            write(np.roll(image, 2 * n, 1))


def test_two_frames(demo, tab, tmp_path):
    tab.goto(demo)
    tab.get_by_role("button", name="Predict").first.click()
    tab.get_by_text("upload two frames").wait_for()
    for which, path in enumerate(PAIR):
        drop(tab, which, path)
    summary = predict(tab)
    assert re.search(r"building \d+%, \w+ \d+%.*median motion \d+\.\d\d px", summary), summary
    panels = tab.locator("img[src*='image.png']").last
    panels.wait_for()
    width, height = panels.evaluate("p => p.decode().then(() => [p.naturalWidth, p.naturalHeight])")
    # Three frames above each other, and the legends.
    assert width > 1000 and height > 3 * 300
    with tab.expect_download() as download:
        tab.get_by_role("link", name=re.compile("KB")).first.click()
    download.value.save_as(tmp_path / "flow.png")
    frame = cv2.imread(str(PAIR[0]))
    flow = read_flow(tmp_path / "flow.png")
    assert flow.shape[:2] == frame.shape[:2] and (flow[..., 2] == 1).all()
    assert tab.hosts == {demo.removeprefix("http://")}, "no requests to other hosts"


def test_invalid_frame_is_reported_on_the_page(demo, tab, tmp_path):
    tab.goto(demo)
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.zeros((64, 64, 3), np.uint8))
    for which, path in enumerate((PAIR[0], small)):
        drop(tab, which, path)
    tab.get_by_role("button", name="Predict").first.click()
    message = tab.get_by_text("both frames must have the same size")
    message.wait_for()
    assert message.inner_text().startswith("kitti_pair_1.png is "), "no folders of the server"


def test_damaged_upload_is_reported_on_the_page(demo, tab, tmp_path):
    tab.goto(demo)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no picture")
    for which, path in enumerate((damaged, PAIR[1])):
        drop(tab, which, path)
    tab.get_by_role("button", name="Predict").first.click()
    message = tab.get_by_text("not a readable image")
    message.wait_for()
    assert message.inner_text().startswith("damaged.png: "), "no folders of the server"
    tab.get_by_role("tab", name="A clip").click()
    chosen = tab.locator("input[accept*='.mkv']").get_attribute("accept")
    assert {suffix.strip() for suffix in chosen.split(",")} == set(VIDEO_SUFFIXES)
    (tmp_path / "CLIP.MKV").write_bytes(b"no video")
    drop(tab, -1, tmp_path / "CLIP.MKV")
    tab.get_by_role("button", name="Predict").last.click()
    message = tab.get_by_text("not a video that FFmpeg can read")
    message.wait_for()
    assert message.inner_text().startswith("CLIP.MKV: "), "no folders of the server"


def test_clip_gives_a_video_that_plays(demo, tab, tmp_path):
    write_clip(tmp_path / "clip.mp4", 7)
    tab.goto(demo)
    tab.get_by_role("tab", name="A clip").click()
    drop(tab, -1, tmp_path / "clip.mp4")
    # Records all text from now on, since the progress bar is gone at the end.
    tab.evaluate(
        "window.shown = ''; new MutationObserver(() => { shown += document.body.innerText })"
        "  .observe(document.body, {subtree: true, childList: true, characterData: true})"
    )
    summary = predict(tab, -1)
    assert (
        summary == "4 frames, 8 per second; only the beginning of the clip: --frames 4 is the limit"
    )
    # Four predictions read five frames.
    steps = {int(n) for n in re.findall(r"(\d)/5 frames", tab.evaluate("window.shown"))}
    assert steps and steps <= set(range(6)), tab.evaluate("window.shown")
    assert tab.hosts == {demo.removeprefix("http://")}, "no requests to other hosts"
    player = tab.locator("video").last
    player.wait_for()
    length, width = player.evaluate(
        "v => new Promise(done => setInterval(() =>"
        "  v.currentTime > 0.2 && done([v.duration, v.videoWidth]), 50))"
    )
    assert length == pytest.approx(4 / 8, abs=0.15) and width > 400


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_uploads_are_removed_when_the_demo_is_stopped(tab, tmp_path, stop):
    clip, folder = tmp_path / "clip.mp4", tmp_path / "temporary"
    folder.mkdir()
    write_clip(clip, 200)
    limit = ("--frames", 200)
    with served(*DEMO[:-2], *limit, stop=stop, TMPDIR=str(folder)) as address:
        tab.goto(address)
        tab.get_by_role("tab", name="A clip").click()
        drop(tab, -1, clip)
        tab.get_by_role("button", name="Predict").last.click()
        tab.get_by_text(re.compile(r"\d/200 frames")).wait_for()
        assert list(folder.glob("flowseg-demo-*/**/clip.mp4"))
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def tensorboard(trained_run):
    """Address of TensorBoard for a finished training."""
    with served("tensorboard.main", "--logdir", trained_run, "--host", "127.0.0.1") as address:
        yield address


def test_tensorboard_scalars(tensorboard, tab):
    tab.goto(f"{tensorboard}/#scalars")
    for tag in (
        "seg/miou",
        "flow/aepe",
        "seg_loss",
        "flow_loss",
        "loss",
        "learning_rate",
        "alpha",
        "beta",
        "speed/examples_per_second",
        "speed/input_wait",
    ):
        # One at a time: the page shows only a dozen tags at once.
        tab.locator("tf-tag-filterer input").fill(f"^{tag}$")
        tab.get_by_text(f"tag: {tag}", exact=True).first.wait_for()


def test_tensorboard_images(tensorboard, tab):
    tab.goto(f"{tensorboard}/#images")
    tab.locator("tf-tag-filterer input").fill(".")
    for tag in ("seg/confusion", "frames/"):
        tab.get_by_text(re.compile(f"tag: {tag}")).first.wait_for()
    images = tab.locator("tf-image-loader img")
    images.nth(1).wait_for()
    for n in range(2):
        assert images.nth(n).evaluate("p => p.decode().then(() => p.naturalWidth)") > 200


def test_tensorboard_graph_and_hyperparameters(tensorboard, tab):
    tab.goto(f"{tensorboard}/#graphs")
    for part in ("encoder", "decoder"):
        tab.locator("svg text").filter(has_text=part).first.wait_for()
    tab.goto(f"{tensorboard}/#hparams")
    tab.reload()
    for column in ("learning_rate", "exchange", "batch_size", "flow/aepe", "flow/fl_all"):
        tab.get_by_text(column, exact=True).first.wait_for()
    tab.get_by_text("efficientnet_lite0").first.wait_for()


def test_report_shows_its_images_without_other_files(trained_run, kitti_records, tab, tmp_path):
    report = tmp_path / "report.html"
    run_command(
        "flowseg.evaluate",
        "--run_dir",
        trained_run,
        "--report",
        report,
        "--records",
        kitti_records / "val-*",
        "--metrics_json",
        tmp_path / "scores.json",
    )
    tab.goto(report.as_uri())
    sizes = tab.evaluate(
        "Promise.all([...document.images].map(p => p.decode().then(() => p.naturalWidth)))"
    )
    assert len(sizes) >= 2 and min(sizes) > 100
    assert tab.get_by_role("heading", level=1).count() == 1
    worst = tab.locator("figure.worst")
    assert worst.count() >= 2 and worst.first.get_by_text("worst", exact=True).is_visible()
    # A file URL has no host.
    assert tab.hosts == {""}
    wide = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, "the page is wider than its window"


@pytest.mark.parametrize("suffix", FORMATS)
def test_written_clip_plays_in_the_browser(tab, tmp_path, suffix):
    with video_writer(tmp_path / f"a{suffix}", 10) as write:
        for n in range(5):
            write(np.full((64, 96, 3), 40 * n, np.uint8))
    assert open_frames(tmp_path / f"a{suffix}")[2] == 5
    (tmp_path / "page.html").write_text(f'<video src="a{suffix}" muted></video>')
    tab.goto((tmp_path / "page.html").as_uri())
    size = tab.locator("video").evaluate(
        "v => v.play().then(() => [v.videoWidth, v.videoHeight, v.duration])"
    )
    assert size == [96, 64, pytest.approx(0.5, abs=0.11)]

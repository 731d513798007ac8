"""Pages as a person sees them, in Debian's Chromium without a window (apt-get install chromium).

`make test-all` runs these; the extras `demo` and `browser` bring what they want.
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
from flowseg.media.frames import VIDEO_SUFFIXES, open_frames, video_writer
from tests.conftest import ROOT, run_command

pytestmark = pytest.mark.browser
PAIR = [ROOT / "experiments/pictures" / f"kitti_pair_{n}.png" for n in (1, 2)]
# Of what is waited for, in ms; a network's first answer to a new size takes longest.
PATIENCE = 90_000


@pytest.fixture(scope="module")
def browser():
    """A running Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "these tests want Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses root, as whom containers run.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(browser):
    """An empty page that notes in `tab.asked` which hosts it asked, and has patience."""
    tab = browser.new_page(viewport={"width": 1400, "height": 1000})
    tab.set_default_timeout(PATIENCE)
    tab.asked = set()
    tab.on("request", lambda request: tab.asked.add(request.url.split("/")[2]))
    yield tab
    tab.close()


@contextmanager
def served(*command, stop=signal.SIGINT, **environment):
    """Run `python -m COMMAND --port PORT`; yield its address once it answers; stop it."""
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
            pytest.fail(f"{address} does not answer")
        yield address
    finally:
        # As Ctrl-C does, or whoever ends services: then the demo takes its folder away.
        server.send_signal(stop)
        said, _ = server.communicate(timeout=60)
    assert server.returncode in (0, -stop), said


# A proxy that does not answer, and exceptions from it that do not name this machine.
PROXIES = {
    **dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "example.org"),
}
DEMO = ("flowseg.demo", "--weights", "pretrained", "--frames", 4)


@pytest.fixture(scope="module")
def demo():
    """Address of the demo page of the network in the box."""
    with served(*DEMO, **PROXIES) as address:
        yield address


def ask(tab, which=0):
    """Press the button of a tab; what it said at the end."""
    tab.get_by_role("button", name="Look").nth(which).click()
    words = tab.get_by_label("In words").nth(which)
    words.evaluate(
        "(box, patience) => new Promise((done, failed) => {"
        "  setTimeout(() => failed('no answer'), patience);"
        "  setInterval(() => box.value && done(), 100) })",
        PATIENCE,
    )
    return words.input_value()


def drop(tab, which, path):
    """Choose a file for the n-th box that takes one, and wait until it is there."""
    tab.locator("input[type=file]").nth(which).set_input_files(str(path))
    tab.wait_for_load_state("networkidle")


def write_clip(path, count):
    """A street that slides to the right, 8 frames a second."""
    image = cv2.imread(str(PAIR[0]))[:128, :416, ::-1]
    with video_writer(path, 8) as write:
        for n in range(count):
            write(np.roll(image, 2 * n, 1))


def test_two_frames_dropped_are_answered(demo, tab, tmp_path):
    tab.goto(demo)
    tab.get_by_role("button", name="Look").first.click()
    tab.get_by_text("drop two frames").wait_for()
    for which, path in enumerate(PAIR):
        drop(tab, which, path)
    said = ask(tab)
    assert re.search(r"building \d+%, \w+ \d+%.*median motion \d+\.\d\d px", said), said
    picture = tab.locator("img[src*='image.png']").last
    picture.wait_for()
    width, height = picture.evaluate(
        "p => p.decode().then(() => [p.naturalWidth, p.naturalHeight])"
    )
    # Three frames above each other, and the keys.
    assert width > 1000 and height > 3 * 300
    with tab.expect_download() as got:
        tab.get_by_role("link", name=re.compile("KB")).first.click()
    got.value.save_as(tmp_path / "flow.png")
    frame = cv2.imread(str(PAIR[0]))
    flow = read_flow(tmp_path / "flow.png")
    assert flow.shape[:2] == frame.shape[:2] and (flow[..., 2] == 1).all()
    assert tab.asked == {demo.removeprefix("http://")}, "nothing is fetched from elsewhere"


def test_a_wrong_frame_is_told_at_the_page(demo, tab, tmp_path):
    tab.goto(demo)
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.zeros((64, 64, 3), np.uint8))
    for which, path in enumerate((PAIR[0], small)):
        drop(tab, which, path)
    tab.get_by_role("button", name="Look").first.click()
    told = tab.get_by_text("both frames must have one size")
    told.wait_for()
    assert told.inner_text().startswith("kitti_pair_1.png is "), "no folders of the server's"


def test_a_damaged_upload_is_told_at_the_page(demo, tab, tmp_path):
    tab.goto(demo)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no picture")
    for which, path in enumerate((damaged, PAIR[1])):
        drop(tab, which, path)
    tab.get_by_role("button", name="Look").first.click()
    told = tab.get_by_text("not a readable image")
    told.wait_for()
    assert told.inner_text().startswith("damaged.png: "), "no folders of the server's"
    tab.get_by_role("tab", name="A clip").click()
    chosen = tab.locator("input[accept*='.mkv']").get_attribute("accept")
    assert {suffix.strip() for suffix in chosen.split(",")} == set(VIDEO_SUFFIXES)
    (tmp_path / "CLIP.MKV").write_bytes(b"no video")
    drop(tab, -1, tmp_path / "CLIP.MKV")
    tab.get_by_role("button", name="Look").last.click()
    told = tab.get_by_text("not a video that OpenCV can read")
    told.wait_for()
    assert told.inner_text().startswith("CLIP.MKV: "), "no folders of the server's"


def test_a_clip_dropped_is_answered_by_a_video_that_plays(demo, tab, tmp_path):
    write_clip(tmp_path / "clip.mp4", 7)
    tab.goto(demo)
    tab.get_by_role("tab", name="A clip").click()
    drop(tab, -1, tmp_path / "clip.mp4")
    # All that the page shows from now on, for the progress bar is gone at the end.
    tab.evaluate(
        "window.shown = ''; new MutationObserver(() => { shown += document.body.innerText })"
        "  .observe(document.body, {subtree: true, childList: true, characterData: true})"
    )
    said = ask(tab, -1)
    assert said == "4 frames, 8 a second; only the beginning of the clip: --frames 4 is the limit"
    # Five frames are looked at for four answers.
    steps = {int(n) for n in re.findall(r"(\d)/5 frames", tab.evaluate("window.shown"))}
    assert steps and steps <= set(range(6)), tab.evaluate("window.shown")
    assert tab.asked == {demo.removeprefix("http://")}, "nothing is fetched from elsewhere"
    played = tab.locator("video").last
    played.wait_for()
    length, width = played.evaluate(
        "v => new Promise(done => setInterval(() =>"
        "  v.currentTime > 0.2 && done([v.duration, v.videoWidth]), 50))"
    )
    assert length == pytest.approx(4 / 8, abs=0.15) and width > 400


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_what_was_dropped_goes_when_the_demo_ends_in_the_midst(tab, tmp_path, stop):
    clip, folder = tmp_path / "clip.mp4", tmp_path / "temporary"
    folder.mkdir()
    write_clip(clip, 200)
    limit = ("--frames", 200)
    with served(*DEMO[:-2], *limit, stop=stop, TMPDIR=str(folder)) as address:
        tab.goto(address)
        tab.get_by_role("tab", name="A clip").click()
        drop(tab, -1, clip)
        tab.get_by_role("button", name="Look").last.click()
        tab.get_by_text(re.compile(r"\d/200 frames")).wait_for()
        assert list(folder.glob("flowseg-demo-*/**/clip.mp4"))
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def tensorboard(trained_run):
    """Address of TensorBoard on a finished training."""
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
        # One by one: the page shows but a dozen at once.
        tab.locator("tf-tag-filterer input").fill(f"^{tag}$")
        tab.get_by_text(f"tag: {tag}", exact=True).first.wait_for()


def test_tensorboard_pictures(tensorboard, tab):
    tab.goto(f"{tensorboard}/#images")
    tab.locator("tf-tag-filterer input").fill(".")
    for tag in ("seg/confusion", "frames/"):
        tab.get_by_text(re.compile(f"tag: {tag}")).first.wait_for()
    pictures = tab.locator("tf-image-loader img")
    pictures.nth(1).wait_for()
    for n in range(2):
        assert pictures.nth(n).evaluate("p => p.decode().then(() => p.naturalWidth)") > 200


def test_tensorboard_graph_and_hyperparameters(tensorboard, tab):
    tab.goto(f"{tensorboard}/#graphs")
    for part in ("encoder", "decoder"):
        tab.locator("svg text").filter(has_text=part).first.wait_for()
    tab.goto(f"{tensorboard}/#hparams")
    tab.reload()
    for column in ("learning_rate", "exchange", "batch_size", "flow/aepe", "flow/fl_all"):
        tab.get_by_text(column, exact=True).first.wait_for()
    tab.get_by_text("efficientnet_lite0").first.wait_for()


def test_report_shows_all_its_pictures_by_itself(trained_run, kitti_records, tab, tmp_path):
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
    # Of a file's address no host is asked.
    assert tab.asked == {""}
    wide = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, "the page is wider than its window"


def test_clip_of_the_command_plays_in_the_browser(tab, tmp_path):
    with video_writer(tmp_path / "a.webm", 10) as write:
        for n in range(5):
            write(np.full((64, 96, 3), 40 * n, np.uint8))
    assert open_frames(tmp_path / "a.webm")[2] == 5
    (tmp_path / "page.html").write_text('<video src="a.webm" muted></video>')
    tab.goto((tmp_path / "page.html").as_uri())
    size = tab.locator("video").evaluate(
        "v => v.play().then(() => [v.videoWidth, v.videoHeight, v.duration])"
    )
    assert size == [96, 64, pytest.approx(0.5, abs=0.11)]

"""Tests of the frames of drives: independence, consistency in time, and a world without end."""

import numpy as np
import pytest

from data_prep.scenes import layout, roadside, route, video, video_world
from data_prep.scenes.route import Settings
from experiments.studies.set_measures import pair_values
from flowseg.data.labels import KNOWN_IDS

SETTINGS = Settings(0, 3, 64, 208, effects=True, speed=None, rate=10.0)
PLAIN = SETTINGS._replace(effects=False)


def frame_of(settings, number):
    return next(video.render(settings, [number]))


@pytest.fixture(scope="module")
def drive():
    """Six consecutive frames of three drives without effects."""
    return [
        list(video.render(PLAIN._replace(drive=n, height=96, width=312), range(20, 26)))
        for n in range(3)
    ]


def test_a_frame_depends_only_on_settings_and_number():
    together = list(video.render(SETTINGS, range(4, 7)))
    for number in (6, 4, 5):
        alone = frame_of(SETTINGS, number)
        for field in alone._fields:
            expected = getattr(together[number - 4], field)
            assert np.array_equal(getattr(alone, field), expected), field
    skipping = list(video.render(SETTINGS, [4, 6]))
    assert np.array_equal(skipping[1].image, together[2].image)


@pytest.mark.parametrize(
    "change", [{"drive": 1}, {"seed": 4}, {"speed": 3.0}, {"rate": 5.0}, {"effects": False}]
)
def test_each_setting_changes_the_frame(change):
    first, other = (frame_of(s, 3) for s in (SETTINGS, SETTINGS._replace(**change)))
    assert not np.array_equal(first.image, other.image)


def test_rate_samples_the_same_drive():
    slow = frame_of(PLAIN._replace(rate=5.0), 4)
    fast = frame_of(PLAIN._replace(rate=20.0), 16)
    assert np.array_equal(slow.image, fast.image) and np.array_equal(slow.labels, fast.labels)
    ratio = np.linalg.norm(slow.flow, axis=-1).mean() / np.linalg.norm(fast.flow, axis=-1).mean()
    assert 3 < ratio < 7


def test_shapes_types_and_masks():
    frame = frame_of(SETTINGS, 2)
    assert frame.image.shape == (64, 208, 3) and frame.image.dtype == np.uint8
    assert frame.image.std() > 20
    for flow, valid in ((frame.flow, frame.valid), (frame.backward, frame.backward_valid)):
        assert flow.shape == (64, 208, 2) and flow.dtype == np.float32 and np.isfinite(flow).all()
        assert valid.shape == (64, 208) and valid.dtype == bool and valid.mean() > 0.99
        assert not flow[~valid].any()
    assert not (frame.visible & ~frame.valid).any() and 0.5 < frame.visible.mean() < 1
    assert frame.labels.dtype == np.uint8 and frame.instances.dtype == np.uint16
    assert set(np.unique(frame.labels)) <= set(KNOWN_IDS["cityscapes"])


def test_instances_are_class_and_number():
    seen = set()
    for number in range(5):
        frame = frame_of(PLAIN._replace(drive=number, height=48, width=156), 50)
        counted = frame.instances >= 1000
        assert np.array_equal(frame.instances[counted] // 1000, frame.labels[counted])
        assert np.array_equal(frame.instances[~counted], frame.labels[~counted])
        # People and vehicles are counted, and nothing else is.
        assert np.array_equal(counted, frame.labels >= 24)
        seen |= set(np.unique(frame.labels[counted]))
    assert seen >= {24, 26}


def inner(frame, margin=2):
    """Mask of the pixels away from edges of instances and of flow."""
    edge = np.zeros(frame.labels.shape, bool)
    ids = frame.instances.astype(int)
    for axis in (0, 1):
        step = np.diff(ids, axis=axis) != 0
        for flow in (frame.flow, frame.backward):
            speed = 1 + 0.1 * np.linalg.norm(flow, axis=-1)
            low = np.minimum(speed[1:] if axis == 0 else speed[:, 1:], 1e9)
            step |= np.abs(np.diff(flow, axis=axis)).max(-1) > low
        pads = [(1, 0) if a == axis else (0, 0) for a in (0, 1)]
        edge |= np.pad(step, pads) | np.pad(step, [p[::-1] for p in pads])
    for _ in range(margin):
        grown = edge.copy()
        grown[1:] |= edge[:-1]
        grown[:-1] |= edge[1:]
        grown[:, 1:] |= edge[:, :-1]
        grown[:, :-1] |= edge[:, 1:]
        edge = grown
    return ~edge


def test_objects_keep_their_number_through_the_video(drive):
    right = checked = 0
    for frames in drive:
        for now, after in zip(frames[:-1], frames[1:], strict=True):
            use = now.visible & (now.instances >= 1000) & inner(now, 1)
            y, x = np.nonzero(use)
            ends = np.rint(now.flow[use] + np.stack([x, y], -1)).astype(int)
            right += (after.instances[ends[:, 1], ends[:, 0]] == now.instances[use]).sum()
            checked += len(y)
    assert checked > 1500 and right > 0.99 * checked


def test_flow_explains_the_frames_around(drive):
    forward, backward = [], []
    for frames in drive:
        for now, after in zip(frames[:-1], frames[1:], strict=True):
            flow = np.dstack([now.flow, now.visible])
            forward.append(pair_values(now.image, after.image, flow)["pair/ratio"])
            height, width = now.labels.shape
            y, x = np.mgrid[:height, :width]
            ends = after.backward + np.stack([x, y], -1)
            inside = (ends >= 0).all(-1) & (ends <= (width - 1, height - 1)).all(-1)
            flow = np.dstack([after.backward, after.backward_valid & inside & inner(after)])
            backward.append(pair_values(after.image, now.image, flow)["pair/ratio"])
    assert np.median(forward) > 3.5 and np.median(backward) > 3.5


def test_warp_of_the_network_agrees(drive):
    """`backward_warp` brings the next frame onto this one."""
    from flowseg.network.flow_ops import backward_warp

    for frames in drive:
        now, after = frames[2:4]
        images = [frame.image.astype(np.float32) for frame in (now, after)]
        warped = np.asarray(backward_warp(images[1][None], now.flow[None]))[0]
        use = now.visible & inner(now)
        moved, still = (np.abs(n - images[0])[use].mean() for n in (warped, images[1]))
        assert moved < 0.4 * still


def test_brightness_changes_slowly():
    """The sky, which hardly changes, keeps its brightness."""
    frames = list(video.render(SETTINGS._replace(drive=1), range(0, 6)))
    sky = np.logical_and.reduce([frame.labels == 23 for frame in frames])
    means = np.array([frame.image[sky].mean() for frame in frames])
    assert sky.sum() > 100 and np.abs(np.diff(means)).max() < 0.02 * means.mean()


def test_noise_differs_between_frames():
    generators = [route.noise(route.draw_route(SETTINGS), n) for n in (0, 1)]
    assert generators[0].random() != generators[1].random()


@pytest.mark.parametrize("number", [0, 1500, 40_000])
def test_the_world_goes_on(number):
    """The road is ahead, with objects beside it, kilometres after the start."""
    for index in (0, 4):
        settings = PLAIN._replace(drive=index, speed=12.0)
        drive = route.draw_route(settings)
        view = video_world.build(drive, number)
        ahead = (view.world.data.geom_xpos - view.camera.position) @ view.camera.axes[2]
        for near, far in ((5, 60), (60, 150), (150, 400)):
            assert ((ahead > near) & (ahead < far)).sum() > 20
        frame = frame_of(settings, number)
        assert (frame.labels[-1] == 7).mean() > 0.3
        assert 0.05 < (frame.labels == 7).mean() < 0.6 and (frame.labels == 23).mean() < 0.5


def test_nothing_large_appears_nearby():
    """What the next frame has and this one lacks is far away, or at most a few pixels large."""
    for index in range(2):
        drive = route.draw_route(PLAIN._replace(drive=index, height=375, width=1242, speed=15.0))
        views = [video_world.build(drive, number) for number in (99, 100, 101, 102)]
        for before, now in zip(views[:-1], views[1:], strict=True):
            new = ~np.isin(now.key, before.key)
            offset = now.world.data.geom_xpos - now.camera.position
            distance = np.linalg.norm(offset, axis=1)
            ahead = offset @ now.camera.axes[2] > 0
            # The second largest half length, as the largest may be that of a thin pole.
            half = np.sort(now.world.model.geom_aabb[:, 3:], axis=1)[:, 1]
            thin = 2 * half * now.camera.focal < 1.5 * distance
            assert (new & ahead & (distance < 250) & ~thin).sum() == 0


@pytest.mark.parametrize(("speed", "largest"), [(2.0, (5, 40)), (18.0, (62.8, 500))])
def test_speed_sets_the_size_of_the_flow(speed, largest):
    """At 18 m/s flow exceeds 250 px at 1242 columns, that is 62.8 px at 312."""
    settings = PLAIN._replace(height=96, width=312, speed=speed, drive=1)
    assert route.draw_route(settings).driver.speed == speed
    frames = [frame_of(settings, number) for number in (0, 130)]
    peak = max(np.linalg.norm(frame.flow, axis=-1)[frame.visible].max() for frame in frames)
    assert largest[0] < peak < largest[1]


def test_chunks_do_not_depend_on_the_order():
    first = route.draw_route(PLAIN)
    forward = [route.chunk(first, n) for n in (3, 4)]
    route._chunk.cache_clear()
    backward = [route.chunk(first, n) for n in (4, 3)][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert one.xml.tolist() == other.xml.tolist()
        for name, table in one.tables.items():
            assert np.array_equal(table, other.tables[name]), name


def test_chunks_stay_in_their_part_of_the_road():
    drive = route.draw_route(PLAIN)
    for number in (0, 7, 200):
        parts, numbers = roadside.fill_chunk(np.random.default_rng(0), drive.roadside, number)
        assert len(parts) == len(numbers) > 20
        places = np.array([part.position for part in parts])
        course = drive.course.up_to((number + 1) * roadside.CHUNK)
        s, d = course.locate(places)
        near = np.abs(d) < 15
        assert (s[near] > number * roadside.CHUNK - 8).all()
        assert (s[near] < (number + 1) * roadside.CHUNK + 8).all()


def test_caches_are_bounded():
    caches = (route.draw_route, route._chunk, route._background, route._ground)
    for cache in (*caches, video_world._rig, video._gain):
        assert cache.cache_info().maxsize is not None


def test_strips_of_pairs_and_drives_are_the_same_draw():
    """The road of pairs has as many parts of ground as strips, plus kerb stones."""
    strips = layout.draw_strips(np.random.default_rng(5), 4.0, "town")
    assert strips.rows[1][-1][0] == np.inf and strips.rows[-1][-1][0] == np.inf
    for side in (1, -1):
        widths = [width for width, _, _ in strips.rows[side][:-1]]
        assert strips.line[side] == pytest.approx(4.0 + sum(widths))

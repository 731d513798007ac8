"""Tests of the endless road and of the driver who follows it."""

import numpy as np
import pytest

from data_prep.scenes import course as courses
from data_prep.scenes.camera import kitti_lens
from data_prep.scenes.course import Course, draw_course
from data_prep.scenes.driver import draw_driver

ROAD = Course(((0.3, 200.0, 1.0), (0.4, 700.0, 4.0)), 4.0, (3.0, 4.5), True, (40.0, 100.0))


@pytest.mark.parametrize("start", [-400.0, 0.0, 3583.5, 40_000.25])
def test_road_follows_its_heading(start):
    for s in start + np.arange(0, 300, 37.3):
        ends = np.array([ROAD.at(s + step, 0.0)[:2] for step in (-5e-4, 5e-4)])
        heading = ROAD.at(s, 0.0)[2]
        np.testing.assert_allclose((ends[1] - ends[0]) / 1e-3,
                                   [np.cos(heading), np.sin(heading)], atol=1e-6)  # fmt: skip
        turned = ROAD.heading(s + 1e-4) - ROAD.heading(s - 1e-4)
        assert turned / 2e-4 == pytest.approx(ROAD.curve(s), abs=1e-7)
        left = np.subtract(ROAD.at(s, 2.5)[:2], ROAD.at(s, 0.0)[:2])
        np.testing.assert_allclose(left, [-2.5 * np.sin(heading), 2.5 * np.cos(heading)], atol=1e-9)
    assert ROAD.at(0.0, 0.0)[:2] == (0.0, 0.0)


@pytest.mark.parametrize("start", [-300.0, 0.0, 20_000.0])
def test_locate_inverts_at(start):
    rng = np.random.default_rng(0)
    s, d = start + rng.uniform(0, 800, 200), rng.uniform(-15, 15, 200)
    points = np.array([ROAD.at(*n)[:2] for n in zip(s, d, strict=True)])
    located = ROAD.up_to(start + 800).locate(points)
    np.testing.assert_allclose(located, [s, d], atol=2e-3)


def test_longer_tables_begin_with_the_same_numbers():
    short, long = (courses._centre_line(ROAD.swings, n) for n in (1, 3))
    assert np.array_equal(short, long[: len(short)])


def test_drawn_roads_bend_and_never_turn_back():
    bends = []
    for index in range(60):
        road = draw_course(np.random.default_rng(index), 4.0, "suburb")
        s = np.arange(0, 5000, 2.0)
        assert np.abs(road.heading(s)).max() < 1
        bends.append(np.abs(road.curve(s)).max())
    assert max(bends) < 0.012 and np.median(bends) > 1e-3


def test_zebra_crossings_recur():
    def paint(s):
        points = np.array([[*ROAD.at(s, d)[:2], 0] for d in np.arange(-3, 3, 0.05)])
        count = len(points)
        return ROAD.up_to(s).paint(points, np.full(count, 0.01), np.ones(count)).mean()

    for s in (40.0, 140.0, 7040.0):
        assert paint(s) > 0.3 > 0.1 > paint(s + 30)


@pytest.mark.parametrize("speed", [None, 1.0, 18.0])
def test_driver_keeps_to_the_lane_for_minutes(speed):
    lens = kitti_lens(96, 312)
    for index in range(4):
        rng = np.random.default_rng(index)
        road = draw_course(rng, 4.0, "town")
        driver = draw_driver(rng, -1.8, speed)
        times = np.arange(0, 1200, 7.7)
        cameras = [driver.camera(time, road, lens) for time in times]
        places = np.array([camera.position for camera in cameras])
        s, d = road.up_to(driver.s(1200)).locate(places)
        assert (np.abs(d + 1.8) < 0.6).all()
        # The camera is 0.3 m ahead of the car's centre.
        np.testing.assert_allclose(s, [driver.s(time) + 0.3 for time in times], atol=0.02)
        assert (np.diff(s) > 0).all()
        assert (np.abs(places[:, 2] - driver.height) < 0.03).all()
        ahead = np.array([np.arctan2(camera.axes[2, 1], camera.axes[2, 0]) for camera in cameras])
        assert np.abs(ahead - road.heading(s)).max() < (0.35 if speed == 1.0 else 0.12)
        if speed:
            assert driver.s(12_000) / 12_000 == pytest.approx(speed, rel=0.01)


def test_speed_is_the_change_of_the_place():
    driver = draw_driver(np.random.default_rng(3), -1.5, None)
    assert driver.s(0.0) == 0
    speeds = []
    for time in np.arange(0, 60, 3.1):
        measured = (driver.s(time + 1e-4) - driver.s(time - 1e-4)) / 2e-4
        assert measured == pytest.approx(driver.velocity(time), rel=1e-5)
        speeds.append(measured)
    assert 0.5 < min(speeds) / driver.speed < max(speeds) / driver.speed < 1.5


def test_frames_of_a_drive_follow_without_jumps():
    lens = kitti_lens(375, 1242)
    rng = np.random.default_rng(1)
    road, driver = draw_course(rng, 4.0, "town"), draw_driver(rng, -1.8, 10.0)
    cameras = [driver.camera(n / 10, road, lens) for n in range(400)]
    steps = np.diff([camera.position for camera in cameras], axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    assert 0.6 < lengths.min() < lengths.max() < 1.4 and np.abs(np.diff(lengths)).max() < 0.02
    turns = [
        np.abs(a.axes @ b.axes.T - np.eye(3)).max()
        for a, b in zip(cameras[:-1], cameras[1:], strict=True)
    ]
    assert max(turns) < 0.03

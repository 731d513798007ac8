"""Tests of the people and vehicles of drives, whose motion is a formula of time."""

import numpy as np
import pytest

from data_prep.scenes import movers, route, traffic
from data_prep.scenes.route import Settings
from data_prep.scenes.traffic import Stream

SETTINGS = Settings(0, 0, 64, 208, effects=False, speed=8.0, rate=10.0)


def drives(count=12):
    return [route.draw_route(SETTINGS._replace(drive=n)) for n in range(count)]


def positions(drive, index, time):
    """Return member -> position of its first part, for a stream at a time."""
    stream, places_of = drive.streams[index], {}
    for member, key in traffic.members(
        route.stream_seed(drive, index), stream, drive.driver, time, 60.0
    ):
        rig = traffic.make_rig(key, stream)
        _, places = traffic.pose(rig, stream, member, drive.roadside, drive.driver, time)
        places_of[member] = places[0]
    return places_of


def test_movers_keep_moving_along_the_road():
    kinds = set()
    for drive in drives():
        for index, stream in enumerate(drive.streams):
            kinds.add(stream.kind)
            if stream.kind == "ahead":
                continue
            first, second = (positions(drive, index, time) for time in (300.0, 300.5))
            both = first.keys() & second.keys()
            assert len(both) >= len(first) - 3
            for member in both:
                step = second[member] - first[member]
                assert np.hypot(*step[:2]) == pytest.approx(abs(stream.speed) * 0.5, abs=0.12)
    assert kinds == {"oncoming", "ahead", "cyclist", "walker"}


def test_cars_ahead_keep_their_distance():
    gaps = []
    for drive in drives():
        for index, stream in enumerate(drive.streams):
            if stream.kind != "ahead":
                continue
            for time in (0.0, 33.0, 700.0):
                places = positions(drive, index, time)
                camera = drive.driver.camera(time, drive.course, drive.lens).position
                gaps += [np.hypot(*(place - camera)[:2]) for place in places.values()]
                apart = np.array([places[n][:2] for n in sorted(places)])
                assert (np.linalg.norm(np.diff(apart, axis=0), axis=1) > 8).all()
    assert len(gaps) > 10 and min(gaps) > 10 and max(gaps) < 200


def test_members_of_a_stream_do_not_touch():
    for drive in drives():
        for index, stream in enumerate(drive.streams):
            places = positions(drive, index, 77.0)
            along = sorted(drive.course.up_to(5000).locate(np.array([*places.values()]))[0])
            assert np.diff(along).min(initial=np.inf) > (3 if stream.kind == "walker" else 6)


def test_new_members_appear_far_ahead():
    for drive in drives(6):
        for index, stream in enumerate(drive.streams):
            if stream.kind == "ahead":
                continue
            seen = positions(drive, index, 100.0)
            for time in (101.0, 104.0):
                camera = drive.driver.camera(time, drive.course, drive.lens).position
                for member, place in positions(drive, index, time).items():
                    if member not in seen and place[0] > camera[0]:
                        assert np.hypot(*(place - camera)[:2]) > 0.6 * stream.distance
                seen |= positions(drive, index, time)


def test_walkers_swing_their_limbs_as_in_pairs():
    """At time 0 angle and speed are those of the pair's body; the swing has a constant size."""
    stream = Stream("walker", 5.0, 20.0, 1.0, 1.3, (0, 10), 200.0)
    drive = drives(1)[0]
    key = (1, 2, 3)
    rig = traffic.make_rig(key, stream)
    body = rig.body

    def angle(time, limb=0):
        """Return the angle of a limb against the upright body."""
        args = stream, 0, drive.roadside, drive.driver, time
        turns, _ = traffic.pose(rig, *args)
        own = turns[np.flatnonzero(rig.limb == limb)[0]]
        return np.arctan2(own[2, 0], own[2, 2]) * -1

    assert angle(0.0) == pytest.approx(body.limbs[0].angle, abs=1e-9)
    speed = (angle(1e-5) - angle(-1e-5)) / 2e-5
    assert speed == pytest.approx(body.limbs[0].speed, rel=1e-4)
    swings = [angle(time) for time in np.arange(0, 60, 0.05)]
    assert max(swings) == pytest.approx(min(0.5, 0.35 * 1.3), abs=1e-3)
    assert min(swings) == pytest.approx(-max(swings), abs=1e-3)
    assert np.abs(np.diff(swings)).max() < 0.15


def test_cyclists_pedal_about_the_middle():
    body = movers.cyclist(np.random.default_rng(0), 0, 0, 0, 4.0)
    limb = body.limbs[0]
    # The amplitude is 0.35 at any phase.
    assert np.hypot(limb.angle - limb.middle, limb.speed / limb.pace) == pytest.approx(0.35)


def test_instance_numbers_are_unique_near_the_camera():
    for drive in drives():
        taken = {"vehicle": [], "walker": [], "cyclist": []}
        for stream in drive.streams:
            kind = stream.kind if stream.kind in taken else "vehicle"
            first, many = stream.numbers
            taken[kind] += range(first, first + many)
            # Numbers recur only far outside the view.
            assert stream.kind == "ahead" or many * stream.gap > 1500
        for numbers in taken.values():
            assert len(numbers) == len(set(numbers)) and max(numbers, default=0) < 1000
        assert min(taken["vehicle"], default=600) >= 600

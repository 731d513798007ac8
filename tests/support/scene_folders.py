"""Flags and contents of folders of synthetic scenes, for the tests of their command."""

from data_prep.scenes.photos import find_photos

FLOW = "data_scene_flow/training"
LABELS = "data_semantics/training"
SIZE = {"height": 64, "width": 96}
SIZE_FLAGS = ("--height=64", "--width=96")


def as_flags(world, photos, count=4):
    photo_flags = ["--photos", photos] if photos else []
    return ["--world", world, *photo_flags, "--count", count, *SIZE_FLAGS]


def content(folder):
    """Return relative path -> bytes of all files except the lock."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def pictures(folder):
    return list(folder.rglob("*_1?.png"))


def find_photos_of(world):
    return find_photos(world["photos"]) if world["photos"] else None

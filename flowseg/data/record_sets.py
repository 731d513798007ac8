"""Which records a training reads, how often each set of them, and what is wrong with that."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flowseg.console import warn
from flowseg.data import damaged_records, decoding, records
from flowseg.data.batches import truth_numbers
from flowseg.data.labels import LabelSet
from flowseg.errors import ArgumentError


class RecordSets(NamedTuple):
    """What a training reads.

    Attributes:
        train: list of record sets, each a list of files.
        val: files to validate on; may be empty.
    """

    train: list[list[str]]
    val: list[str]

    def files(self) -> list[str]:
        """All of them."""
        return [path for paths in self.train for path in paths] + self.val


def find(train_records: Sequence[str], val_records: Sequence[str] = ()) -> RecordSets:
    """The files of record sets.

    Args:
        train_records: one glob a set.
        val_records: globs of the files to validate on.

    Raises:
        ValueError: nothing there.
    """
    if not train_records:
        raise ArgumentError(
            "train_records is empty: name the record sets to train on", "train_records"
        )
    train = [records.match_files(pattern) for pattern in train_records]
    return RecordSets(train, _validation_files(val_records))


def without_damaged(sets: RecordSets, label_set: LabelSet, folder: Path) -> tuple[RecordSets, int]:
    """The sets with copies of damaged shards in their place, and how many records are left out.

    Args:
        sets: of `find`.
        label_set: the run's classes.
        folder: see `damaged_records.sound_files`, as for errors.
    """
    paths, bad = damaged_records.sound_files(sets.files(), label_set, folder)
    sound = iter(paths)
    train = [[next(sound) for _ in files] for files in sets.train]
    return RecordSets(train, list(sound)), bad


def truth_up_to(
    file_sets: list[list[str]], label_fraction: Sequence[float], seed: int
) -> list[int | None]:
    """What of each set is used as truth: see `batches.Draw`.

    Raises:
        ValueError: shares that make no sense, or leave a set less than a frame.
    """
    shares = tuple(label_fraction)
    if len(shares) == 1:
        shares = shares * len(file_sets)
    if len(shares) != len(file_sets) or not all(0 <= share <= 1 for share in shares):
        raise ArgumentError(
            f"label_fraction={_listed(label_fraction)}: one number, or one a record set "
            f"({len(file_sets)}), from 0 to 1",
            "label_fraction",
        )
    return [
        None if share == 1 else _limit(files, share, seed)
        for files, share in zip(file_sets, shares, strict=True)
    ]


def draw_weights(
    file_sets: list[list[str]],
    train_weights: Sequence[float] = (),
    learn: str = "both",
    made_flow: bool = True,
    without_truth: bool = False,
) -> list[float]:
    """How often each set is drawn from while `learn` learns: not, where it has nothing for it.

    Args:
        file_sets: the record sets, each a list of files.
        train_weights: one number a set; default: equally often.
        learn: "seg", "flow" or "both".
        made_flow: whether the flow of made second frames is learnt.
        without_truth: whether what learns is also trained on frames without truth.

    Raises:
        ValueError: numbers that make no sense; no set has truth for what learns.
    """
    weights = tuple(train_weights) or (1.0,) * len(file_sets)
    usable = all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0
    if len(weights) != len(file_sets) or not usable:
        raise ArgumentError(
            f"train_weights={_listed(weights)}: one number a record set "
            f"({len(file_sets)}), none below 0 and not all 0",
            "train_weights",
        )
    if learn == "both" or without_truth:
        return list(weights)
    pairs = zip(weights, file_sets, strict=True)
    own = [weight * decoding.teaches(paths, learn, made_flow) for weight, paths in pairs]
    if not any(own):
        raise ArgumentError(
            f"train_records: no set that is drawn from has truth for {learn}", "train_records"
        )
    return own


def _listed(numbers):
    return ",".join(f"{number:g}" for number in numbers)


def _limit(files, share, seed):
    numbers = truth_numbers(files, seed)
    kept = round(share * len(numbers))
    if share and not kept:
        raise ArgumentError(
            f"label_fraction: {share:g} of the {len(numbers)} frames of {Path(files[0]).parent} "
            "is less than half a frame: give more, or 0",
            "label_fraction",
        )
    if kept == len(numbers):
        return None
    print(f"{Path(files[0]).parent}: truth of {kept} of {len(numbers)} frames is used")
    return int(numbers[kept - 1]) if kept else -1


def _validation_files(patterns):
    """Files of the globs; a conversion that put no frame into `val` is no error."""
    files = []
    for pattern in patterns:
        try:
            files += records.match_files(pattern)
        except ValueError:
            folder = Path(pattern).parent
            index = decoding.read_index(folder)
            if index is None or index["records"].get("val"):
                raise
            warn(f"{folder}: no frame is for validation, by its index.json: going without")
    return files

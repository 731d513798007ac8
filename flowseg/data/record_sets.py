"""Finds and checks the record sets of a training, and computes their sampling weights."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flowseg.console import warn
from flowseg.data import damaged_records, decoding, records
from flowseg.data.batches import truth_ranks
from flowseg.data.labels import LabelSet
from flowseg.errors import ArgumentError


class RecordSets(NamedTuple):
    """The records of a training.

    Attributes:
        train: list of record sets, each a list of files.
        val: validation files; may be empty.
    """

    train: list[list[str]]
    val: list[str]

    def files(self) -> list[str]:
        """All training and validation files."""
        return [path for paths in self.train for path in paths] + self.val


def find(train_records: Sequence[str], val_records: Sequence[str] = ()) -> RecordSets:
    """Find the files of record sets.

    Args:
        train_records: one glob per record set.
        val_records: globs of the validation files.

    Raises:
        ValueError: there are no globs, or one matches no file.
    """
    if not train_records:
        raise ArgumentError(
            "train_records is empty: specify the record sets to train on", "train_records"
        )
    train = [records.match_files(pattern) for pattern in train_records]
    return RecordSets(train, _validation_files(val_records))


def without_damaged(sets: RecordSets, label_set: LabelSet, folder: Path) -> tuple[RecordSets, int]:
    """Replace damaged shards by copies without bad records, and count the skipped records.

    Args:
        sets: record sets, as returned by `find`.
        label_set: the run's classes.
        folder: see `damaged_records.intact_files`, which also documents the errors raised.
    """
    paths, bad = damaged_records.intact_files(sets.files(), label_set, folder)
    replaced = iter(paths)
    train = [[next(replaced) for _ in files] for files in sets.train]
    return RecordSets(train, list(replaced)), bad


def max_truth_rank(
    file_sets: list[list[str]], label_fraction: Sequence[float], seed: int
) -> list[int | None]:
    """Return, for each set, the largest rank of a frame whose ground truth is used; None: all.

    See `batches.Draw`.

    Raises:
        ValueError: the fractions are invalid, or a non-zero one selects no frame of a set.
    """
    shares = tuple(label_fraction)
    if len(shares) == 1:
        shares = shares * len(file_sets)
    if len(shares) != len(file_sets) or not all(0 <= share <= 1 for share in shares):
        raise ArgumentError(
            f"label_fraction={_comma_separated(label_fraction)}: give one number, or one per "
            f"record set ({len(file_sets)}), each from 0 to 1",
            "label_fraction",
        )
    return [
        None if share == 1 else _truth_rank_limit(files, share, seed)
        for files, share in zip(file_sets, shares, strict=True)
    ]


def draw_weights(
    file_sets: list[list[str]],
    train_weights: Sequence[float] = (),
    learn: str = "both",
    synthetic_flow: bool = True,
    unlabelled: bool = False,
) -> list[float]:
    """Return each set's sampling weight while `learn` is trained: 0 for sets without its targets.

    Args:
        file_sets: the record sets, each a list of files.
        train_weights: one number per set; default: equal weights.
        learn: "seg", "flow" or "both".
        synthetic_flow: whether the flow of synthetic second frames is a target.
        unlabelled: whether `learn` is also trained on frames without ground truth.

    Raises:
        ValueError: the weights are invalid, or no set has targets for `learn`.
    """
    weights = tuple(train_weights) or (1.0,) * len(file_sets)
    usable = all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0
    if len(weights) != len(file_sets) or not usable:
        raise ArgumentError(
            f"train_weights={_comma_separated(weights)}: give one number per record set "
            f"({len(file_sets)}), none below 0 and not all 0",
            "train_weights",
        )
    if learn == "both" or unlabelled:
        return list(weights)
    pairs = zip(weights, file_sets, strict=True)
    used = [weight * decoding.has_targets(paths, learn, synthetic_flow) for weight, paths in pairs]
    if not any(used):
        raise ArgumentError(
            f"train_records: no set with a weight above 0 has ground truth for {learn}",
            "train_records",
        )
    return used


def _comma_separated(values):
    return ",".join(f"{value:g}" for value in values)


def _truth_rank_limit(files, share, seed):
    ranks = truth_ranks(files, seed)
    count = round(share * len(ranks))
    if share and not count:
        raise ArgumentError(
            f"label_fraction: {share:g} of the {len(ranks)} frames of {Path(files[0]).parent} "
            "is less than half a frame: increase it, or set it to 0",
            "label_fraction",
        )
    if count == len(ranks):
        return None
    print(f"{Path(files[0]).parent}: ground truth is used for {count} of {len(ranks)} frames")
    return int(ranks[count - 1]) if count else -1


def _validation_files(patterns):
    """List the files of the globs; a conversion without `val` frames causes only a warning."""
    files = []
    for pattern in patterns:
        try:
            files += records.match_files(pattern)
        except ValueError:
            folder = Path(pattern).parent
            index = records.read_index(folder)
            if index is None or index["records"].get("val"):
                raise
            warn(f"{folder}: index.json lists no validation frames: continuing without them")
    return files

"""Which records a training reads, how often each set of them, and what is wrong with that."""

import math
from pathlib import Path
from typing import NamedTuple

from flowseg.console import warn
from flowseg.data import damaged_records, decoding, records
from flowseg.data.batches import Draw, truth_numbers


class RecordSets(NamedTuple):
    """What a training reads.

    Attributes:
        train: list of record sets, each a list of files.
        val: files to validate on; may be empty.
        weights: by what learns ("seg", "flow", "both"): how often each set is drawn from.
    """

    train: list
    val: list
    weights: dict

    def files(self):
        """All of them."""
        return [path for paths in self.train for path in paths] + self.val


def find(args, label_set):
    """The `RecordSets` that the flags of a training name, each shard looked at.

    Raises:
        ValueError: nothing there, damaged, or nothing in it that is to be learnt.
    """
    if not args.train_records:
        raise ValueError("--train_records is empty: name the record sets to train on")
    train = [records.match_files(pattern) for pattern in args.train_records]
    weights = _weights(args.train_weights, train)
    phases = ("seg", "flow") if args.alternate else (args.learn,)
    taught = {"seg": args.consistency > 0, "flow": args.photometric > 0}
    weights = {
        learn: _weights_for(learn, weights, train, args.made_flow, taught.get(learn))
        for learn in phases
    }
    val = _validation_files(args.val_records or [])
    if args.bad_records == "stop":
        decoding.check_records([path for files in train for path in files] + val, label_set)
    return RecordSets(train, val, weights)


def without_damaged(sets, label_set, folder):
    """The sets with copies of damaged shards in their place, and how many records are left out.

    Args:
        sets: a :class:`RecordSets`.
        label_set: the run's classes.
        folder: see `damaged_records.sound_files`, as for errors.
    """
    paths, bad = damaged_records.sound_files(sets.files(), label_set, folder)
    sound = iter(paths)
    train = [[next(sound) for _ in files] for files in sets.train]
    return sets._replace(train=train, val=list(sound)), bad


def draws(args, sets, pair):
    """Function of what learns ("seg", "flow", "both") -> the `batches.Draw` of a training.

    Args:
        args: the training's flags.
        sets: of `find`.
        pair: whether something is taught without truth.

    Raises:
        ValueError: as `truth_up_to`.
    """
    limits = truth_up_to(args, sets.train)

    def draw(learn):
        return Draw(
            sets.train,
            args.batch_size,
            args.steps_per_epoch,
            args.seed,
            weights=sets.weights[learn],
            truth_up_to=limits,
            without_truth="all" if pair else "stills" if args.made_flow else "none",
        )

    return draw


def truth_up_to(args, file_sets):
    """What of each set is used as truth, by --label_fraction: see `batches.Draw`.

    Raises:
        ValueError: shares that make no sense, or leave a set less than a frame.
    """
    texts = args.label_fraction
    texts = texts * len(file_sets) if len(texts) == 1 else texts
    try:
        shares = [float(text) for text in texts]
    except ValueError:
        shares = []
    if len(shares) != len(file_sets) or not all(0 <= share <= 1 for share in shares):
        raise ValueError(
            f"--label_fraction={','.join(args.label_fraction)}: one number, or one a record set "
            f"({len(file_sets)}), from 0 to 1"
        )
    return [
        None if share == 1 else _limit(files, share, args.seed)
        for files, share in zip(file_sets, shares, strict=True)
    ]


def _weights(texts, file_sets):
    """How often each record set is drawn from, as numbers."""
    if not texts:
        return [1.0] * len(file_sets)
    try:
        weights = [float(text) for text in texts]
    except ValueError:
        weights = []
    usable = all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0
    if len(weights) != len(file_sets) or not usable:
        raise ValueError(
            f"--train_weights={','.join(map(str, texts))}: one number a record set "
            f"({len(file_sets)}), none below 0 and not all 0"
        )
    return weights


def _limit(files, share, seed):
    numbers = truth_numbers(files, seed)
    kept = round(share * len(numbers))
    if share and not kept:
        raise ValueError(
            f"--label_fraction: {share:g} of the {len(numbers)} frames of {Path(files[0]).parent} "
            "is less than half a frame: give more, or 0"
        )
    if kept == len(numbers):
        return None
    print(f"{Path(files[0]).parent}: truth of {kept} of {len(numbers)} frames is used")
    return int(numbers[kept - 1]) if kept else -1


def _weights_for(learn, weights, file_sets, made_flow, without_truth=False):
    """The weights of the sets while `learn` learns: what has nothing for it is not drawn from."""
    if learn == "both" or without_truth:
        return weights
    pairs = zip(weights, file_sets, strict=True)
    own = [weight * decoding.teaches(paths, learn, made_flow) for weight, paths in pairs]
    if not any(own):
        raise ValueError(f"--train_records: no set that is drawn from has truth for {learn}")
    return own


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

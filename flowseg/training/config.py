"""What decides a training: every setting, its default, its bounds and what it means, in one place.

`TrainingConfig(train_records=("data/train-*",), steps=400)` holds a whole training; the command's
flags are made from the same fields (see `cli.flags`).
"""

import dataclasses
from typing import Any

from flowseg.data.augment import Augmentation
from flowseg.errors import ArgumentError
from flowseg.network.backbones import BACKBONES
from flowseg.network.decoder import EXCHANGES
from flowseg.training.losses import FLOW_LOSSES, SEG_LOSSES

BEST_METRICS = ("loss", "seg/miou", "seg/pixel_accuracy", "flow/aepe", "flow/fl_all")


def _setting(default: Any, help: str, at_least=None, at_most=None, choices=None) -> Any:
    """A field with what the flag of its name says of it."""
    known = {"help": help, "at_least": at_least, "at_most": at_most, "choices": choices}
    return dataclasses.field(default=default, metadata=known)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """All settings of a training; see each field's `help`, which is the flag's.

    Raises:
        ArgumentError: a value that a setting cannot have, or settings that do not go together.
    """

    train_records: tuple[str, ...] = _setting((), "Record sets to train on: GLOB[,GLOB ...].")
    train_weights: tuple[float, ...] = _setting(
        (), "How often each record set is drawn from; default: equally."
    )
    label_fraction: tuple[float, ...] = _setting(
        (1.0,),
        "Share of the frames whose truth is used, by --seed: one number, or one a record set. "
        "Others are drawn for --photometric and --consistency alone, and every second time then.",
    )
    val_records: tuple[str, ...] = _setting((), "Record sets to validate on: GLOB[,GLOB ...].")
    label_set: str = _setting("cityscapes", "Classes: a built-in name, or a JSON file.")
    init_from: str | None = _setting(
        None,
        "Weights to start from: a .keras file, a run folder (its best) or a packed one, or "
        "pretrained: those that come with the package (for --backbone efficientnet_lite0).",
    )
    backbone: str = _setting("resnet50", "The encoder.", choices=BACKBONES)
    backbone_weights: str = _setting(
        "none", "Start of the encoder: none, imagenet, or a weights file."
    )
    freeze: str = _setting(
        "none",
        "What of the encoder stays as it starts: nothing; its batch norms, for pretrained weights "
        "and small batches; all of it, for short trainings on few frames.",
        choices=("none", "norms", "encoder"),
    )
    learn: str = _setting(
        "both",
        "Which of the decoder's streams learns; the other keeps its weights, and has no loss.",
        choices=("both", "seg", "flow"),
    )
    alternate: int = _setting(
        0,
        "One stream learns at a time, segmentation first, until its validation score has not got "
        "better in so many epochs of --steps_per_epoch (without validation: for so many); then "
        "the other. 0: both at once.",
        at_least=0,
    )
    exchange: str = _setting("both", "Which stream gets the other's features.", choices=EXCHANGES)
    steps: int = _setting(10000, "Training steps in all.", at_least=1)
    steps_per_epoch: int = _setting(
        500, "Steps between validations, after which order and draws begin anew.", at_least=1
    )
    save_every: int | None = _setting(
        None, "Steps between checkpoints; default: --steps_per_epoch.", at_least=1
    )
    keep_checkpoints: int = _setting(2, "How many are kept.", at_least=1)
    patience: int = _setting(
        0,
        "End when neither seg/miou nor flow/aepe got better in so many validations; 0: never.",
        at_least=0,
    )
    bad_records: str = _setting(
        "stop",
        "At a damaged record: stop; or look at all records first, and leave the bad ones out.",
        choices=("stop", "skip"),
    )
    on_nonfinite: str = _setting(
        "stop",
        "At a loss or gradient that is no number: stop, or leave the step out.",
        choices=("stop", "skip"),
    )
    spike: float = _setting(
        10.0, "Tell of a loss so many times the usual one, with its frames; 0: never.", at_least=0
    )
    deterministic: bool = _setting(False, "Bit for bit the same each time, on one device; slower.")
    batch_size: int = _setting(4, "Examples a step.", at_least=1)
    accumulate: int = _setting(
        1,
        "Batches whose mean gradient makes one change of weights, for large batches in little "
        "memory; each is a step, and norms see each alone.",
        at_least=1,
    )
    height: int = _setting(256, "Rows of a training crop.", at_least=32)
    width: int = _setting(832, "Columns of a training crop.", at_least=32)
    alpha: float = _setting(1.0, "Weight of the segmentation loss.", at_least=0)
    beta: float = _setting(1.0, "Weight of the flow losses.", at_least=0)
    seg_loss: str = _setting(
        "mean",
        "Each pixel counts alike, or rare classes more: by 1 / sqrt(pixels of its class).",
        choices=SEG_LOSSES,
    )
    photometric: float = _setting(
        0.0,
        "Weight, within --beta, of the flow loss that needs no truth: the second frame, warped, "
        "looks like the first, and flow is smooth. Costs a second pass of the decoder.",
        at_least=0,
    )
    consistency: float = _setting(
        0.0,
        "Weight, within --alpha, of the segmentation loss that needs no truth: what moves keeps "
        "its class. Costs a second pass of the decoder.",
        at_least=0,
    )
    flow_loss: str = _setting(
        "log",
        "End-point error, or 3 log(1 + epe / 2), the robust form.",
        choices=FLOW_LOSSES,
    )
    learning_rate: float = _setting(
        8e-4, "Highest learning rate; a cosine ends it near 0.", at_least=0
    )
    warmup_steps: int = _setting(100, "Steps in which the learning rate rises.", at_least=0)
    weight_decay: float = _setting(1e-4, "AdamW's, on kernels alone.", at_least=0)
    clip_norm: float = _setting(0.1, "Largest norm of each weight's gradient; 0: any.", at_least=0)
    precision: str = _setting(
        "float32",
        "Of the training's layers; bfloat16 is for GPUs that have it. Weights stay float32.",
        choices=("float32", "bfloat16"),
    )
    seed: int = _setting(0, "Of weights, order and augmentation.")
    scale: float = _setting(
        0.3,
        "Augmentation: images scaled by 2^s, s this far about --enlarge.",
        at_least=0,
        at_most=2,
    )
    enlarge: float = _setting(
        0.0,
        "Augmentation: middle of those s: over 0 for larger motion.",
        at_least=-1,
        at_most=1,
    )
    stretch: float = _setting(
        0.1, "Augmentation: aspect changed by 2^s, |s| up to this.", at_least=0, at_most=1
    )
    flip: float = _setting(
        0.5, "Augmentation: probability of a mirror image.", at_least=0, at_most=1
    )
    colour: float = _setting(
        0.5, "Augmentation: strength of colour jitter; 1 is RAFT's.", at_least=0, at_most=1
    )
    erase: float = _setting(
        0.3,
        "Augmentation: probability that parts of the second frame are blotted out.",
        at_least=0,
        at_most=1,
    )
    made_flow: bool = _setting(
        True,
        "Frames without a second one get a made one; learn its exact flow, or mask it.",
    )
    best_metric: str = _setting(
        "loss", "Validation score by which best.keras is kept.", choices=BEST_METRICS
    )
    pictures: int = _setting(4, "Frames drawn for TensorBoard each epoch.", at_least=0)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), **field.metadata)
        if self.steps_per_epoch % self.checkpoint_interval:
            raise ArgumentError(
                f"save_every={self.save_every} must divide steps_per_epoch={self.steps_per_epoch}",
                "save_every",
                "steps_per_epoch",
            )
        if self.alternate and self.learn != "both":
            raise ArgumentError(
                f"alternate is for both streams, learn={self.learn} for one", "alternate", "learn"
            )
        if self.alternate and self.val_records and self.best_metric == "loss":
            raise ArgumentError(
                "alternate: the loss is another one in each phase: say which score the best "
                "weights are kept by, as best_metric seg/miou or flow/aepe",
                "alternate",
                "best_metric",
            )

    @property
    def checkpoint_interval(self) -> int:
        """Steps between checkpoints: one of Keras's epochs."""
        return self.save_every or self.steps_per_epoch

    @property
    def augmentation(self) -> Augmentation:
        """Its settings of augmentation, which are named alike."""
        return Augmentation(**{name: getattr(self, name) for name in Augmentation._fields})

    def as_dict(self) -> dict[str, Any]:
        """Name -> value, as TensorBoard and metadata take them; lists as they are written."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            name: ",".join(map(_text, value)) if isinstance(value, tuple) else value
            for name, value in sorted(values.items())
        }


def flag_lines(config: TrainingConfig) -> list[str]:
    """The settings as lines of a flagfile; what has no value is left out."""
    lines = []
    for name, value in config.as_dict().items():
        if isinstance(value, bool):
            lines.append(f"--{name}" if value else f"--no{name}")
        elif value not in (None, ""):
            lines.append(f"--{name}={value}")
    return lines


def _text(item):
    return f"{item:g}" if isinstance(item, float) else str(item)


def _check(name, value, help, at_least, at_most, choices):
    del help
    if choices and value not in choices:
        raise ArgumentError(f"{name} {value!r}: not one of {', '.join(choices)}", name)
    if value is None or isinstance(value, str | tuple | bool):
        return
    # A NaN compares False.
    if (at_least is not None and not value >= at_least) or (
        at_most is not None and not value <= at_most
    ):
        bounds = f"{at_least} or more" if at_most is None else f"{at_least} to {at_most}"
        raise ArgumentError(f"{name}={value}: must be {bounds}", name)

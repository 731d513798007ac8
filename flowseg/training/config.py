"""Defines all settings of a training run: their defaults, bounds and help texts, in one place.

`TrainingConfig(train_records=("data/train-*",), steps=400)` configures a run; the flags of the
command are generated from the same fields (see `cli.flags`).
"""

import dataclasses
from typing import Any

from flowseg.data.augment import Augmentation
from flowseg.errors import ArgumentError
from flowseg.network.backbones import BACKBONES
from flowseg.network.decoder import EXCHANGES
from flowseg.network.flow_stream import COARSEST
from flowseg.training.losses import FLOW_LOSSES, SEG_LOSSES

BEST_METRICS = ("loss", "seg/miou", "seg/pixel_accuracy", "flow/aepe", "flow/fl_all")


def _setting(default: Any, help: str, at_least=None, at_most=None, choices=None) -> Any:
    """Return a field with the help text and bounds of its flag."""
    metadata = {"help": help, "at_least": at_least, "at_most": at_most, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """All settings of a training run; each field's `help` is also its flag's help text.

    Raises:
        ArgumentError: a setting has an invalid value, or settings are incompatible.
    """

    train_records: tuple[str, ...] = _setting((), "Record sets to train on: GLOB[,GLOB ...].")
    train_weights: tuple[float, ...] = _setting(
        (), "Relative sampling weight of each record set; default: equal weights."
    )
    label_fraction: tuple[float, ...] = _setting(
        (1.0,),
        "Fraction of the frames whose ground truth is used, selected by --seed: one number, or one "
        "per record set. With --photometric or --consistency, every second example is one of the "
        "other frames; otherwise only their single images are used, with --synthetic_flow.",
    )
    val_records: tuple[str, ...] = _setting((), "Record sets to validate on: GLOB[,GLOB ...].")
    label_set: str = _setting("cityscapes", "Classes: a built-in name, or a JSON file.")
    init_from: str | None = _setting(
        None,
        "Weights to start from: a .keras file, a run folder (its best weights), a packed network, "
        "or pretrained: the weights in the package (for --backbone efficientnet_lite0).",
    )
    backbone: str = _setting("resnet50", "Encoder architecture.", choices=BACKBONES)
    backbone_weights: str = _setting(
        "none", "Initial weights of the encoder: none, imagenet, or a weights file."
    )
    freeze: str = _setting(
        "none",
        "Part of the encoder to freeze: none; norms: its batch norms, for pretrained weights and "
        "small batches; encoder: all of it, for short runs on few frames.",
        choices=("none", "norms", "encoder"),
    )
    learn: str = _setting(
        "both",
        "Which of the decoder's streams to train; the other keeps its weights and has no loss.",
        choices=("both", "seg", "flow"),
    )
    alternate: int = _setting(
        0,
        "Train one stream at a time, segmentation first; switch to the other when the validation "
        "score has not improved for N epochs of --steps_per_epoch steps (without validation: after "
        "N epochs). 0: train both at once.",
        at_least=0,
    )
    exchange: str = _setting(
        "both", "Which stream receives the other's features.", choices=EXCHANGES
    )
    coarsest: int = _setting(
        16,
        "Stride at which flow starts from zero: 32 and 64 see farther (motion over 96 px).",
        choices=COARSEST,
    )
    steps: int = _setting(10000, "Total number of training steps.", at_least=1)
    steps_per_epoch: int = _setting(
        500, "Steps between validations, after which shuffling and sampling restart.", at_least=1
    )
    save_every: int | None = _setting(
        None, "Steps between checkpoints; default: --steps_per_epoch.", at_least=1
    )
    keep_checkpoints: int = _setting(2, "Number of checkpoints to keep.", at_least=1)
    patience: int = _setting(
        0,
        "Stop when neither seg/miou nor flow/aepe has improved for N validations; 0: never.",
        at_least=0,
    )
    bad_records: str = _setting(
        "stop",
        "On a damaged record: stop; or check all records first and skip the damaged ones.",
        choices=("stop", "skip"),
    )
    on_nonfinite: str = _setting(
        "stop",
        "On a loss or gradient that is NaN or Inf: stop, or skip the step.",
        choices=("stop", "skip"),
    )
    spike: float = _setting(
        10.0, "Report losses over N times the recent median, with the frames; 0: never.", at_least=0
    )
    deterministic: bool = _setting(False, "Make runs bit-identical, on one device; slower.")
    batch_size: int = _setting(4, "Examples per step.", at_least=1)
    accumulate: int = _setting(
        1,
        "Number of batches whose gradients are averaged for one weight update, for large batches "
        "in little memory; each batch counts as a step, and batch norms see it separately.",
        at_least=1,
    )
    height: int = _setting(256, "Rows of a training crop.", at_least=32)
    width: int = _setting(832, "Columns of a training crop.", at_least=32)
    alpha: float = _setting(1.0, "Weight of the segmentation loss.", at_least=0)
    beta: float = _setting(1.0, "Weight of the flow losses.", at_least=0)
    seg_loss: str = _setting(
        "mean",
        "mean: equal weight for all pixels; balanced: weight 1 / sqrt(pixels of their class).",
        choices=SEG_LOSSES,
    )
    photometric: float = _setting(
        0.0,
        "Weight, within --beta, of the flow loss without ground truth: the warped second frame "
        "should match the first, and flow should be smooth. Costs a second pass of the decoder.",
        at_least=0,
    )
    consistency: float = _setting(
        0.0,
        "Weight, within --alpha, of the segmentation loss without ground truth: a point should "
        "have the same class in both frames. Costs a second pass of the decoder.",
        at_least=0,
    )
    flow_loss: str = _setting(
        "log",
        "epe: end-point error; log: 3 log(1 + epe / 2), which is robust to outliers.",
        choices=FLOW_LOSSES,
    )
    learning_rate: float = _setting(
        8e-4, "Peak learning rate; a cosine schedule decays it to near 0.", at_least=0
    )
    warmup_steps: int = _setting(100, "Steps of learning-rate warm-up.", at_least=0)
    weight_decay: float = _setting(1e-4, "Weight decay of AdamW, on kernels only.", at_least=0)
    clip_norm: float = _setting(
        0.1, "Maximum gradient norm of each variable; 0: no clipping.", at_least=0
    )
    precision: str = _setting(
        "float32",
        "Precision of the trained layers; bfloat16 needs a GPU that supports it. Weights stay "
        "float32.",
        choices=("float32", "bfloat16"),
    )
    seed: int = _setting(0, "Random seed for initialisation, shuffling and augmentation.")
    scale: float = _setting(
        0.3,
        "Augmentation: images are scaled by 2^s, with s within this distance of --enlarge.",
        at_least=0,
        at_most=2,
    )
    enlarge: float = _setting(
        0.0,
        "Augmentation: centre of the range of s in --scale; above 0, motion gets larger.",
        at_least=-1,
        at_most=1,
    )
    stretch: float = _setting(
        0.1, "Augmentation: aspect ratio changed by 2^s, |s| up to this.", at_least=0, at_most=1
    )
    flip: float = _setting(
        0.5, "Augmentation: probability of a horizontal flip.", at_least=0, at_most=1
    )
    colour: float = _setting(
        0.5, "Augmentation: strength of colour jitter; 1 is RAFT's.", at_least=0, at_most=1
    )
    erase: float = _setting(
        0.3,
        "Augmentation: probability that rectangles of the second frame are erased.",
        at_least=0,
        at_most=1,
    )
    synthetic_flow: bool = _setting(
        True,
        "Single images get a synthetic second frame: train on its exact flow, or mask it.",
    )
    best_metric: str = _setting(
        "loss", "Validation score that selects best.keras.", choices=BEST_METRICS
    )
    log_every: int = _setting(
        50,
        "Steps between entries of losses, learning rate and speed in TensorBoard; 0: only after "
        "each epoch.",
        at_least=0,
    )
    pictures: int = _setting(4, "Frames to draw for TensorBoard after each epoch.", at_least=0)

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
                f"alternate trains both streams, but learn={self.learn} trains only one",
                "alternate",
                "learn",
            )
        if self.alternate and self.val_records and self.best_metric == "loss":
            raise ArgumentError(
                "alternate: each phase has a different loss, so the best weights must be selected "
                "by another score: best_metric seg/miou or flow/aepe",
                "alternate",
                "best_metric",
            )

    @property
    def checkpoint_interval(self) -> int:
        """Steps between checkpoints, which is the length of a Keras epoch."""
        return self.save_every or self.steps_per_epoch

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation settings; they have the same names in `Augmentation`."""
        return Augmentation(**{name: getattr(self, name) for name in Augmentation._fields})

    def as_dict(self) -> dict[str, Any]:
        """Return name -> value for TensorBoard and metadata; lists become comma-separated text."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            name: ",".join(map(_text, value)) if isinstance(value, tuple) else value
            for name, value in sorted(values.items())
        }


def flag_lines(config: TrainingConfig) -> list[str]:
    """Return the settings as lines of a flagfile; settings without a value are omitted."""
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
        raise ArgumentError(f"{name} {value!r}: not one of {', '.join(map(str, choices))}", name)
    if value is None or isinstance(value, str | tuple | bool):
        return
    # Written with `not`, so that NaN fails, too.
    if (at_least is not None and not value >= at_least) or (
        at_most is not None and not value <= at_most
    ):
        bounds = f"{at_least} or more" if at_most is None else f"{at_least} to {at_most}"
        raise ArgumentError(f"{name}={value}: must be {bounds}", name)

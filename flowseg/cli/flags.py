"""Flags of the commands, each group in a function that a command calls once.

They are defined on call, not on import, so that tests can import every command side by side.
"""

import sys
from pathlib import Path

from absl import flags

BEST_METRICS = ("loss", "seg/miou", "seg/pixel_accuracy", "flow/aepe", "flow/fl_all")


def define_training_flags(train_records_required=True):
    """Everything that decides a training."""
    # Imported here: they bring TensorFlow, which the other commands start without.
    from flowseg.network.backbones import BACKBONES
    from flowseg.network.decoder import EXCHANGES
    from flowseg.training.losses import FLOW_LOSSES, SEG_LOSSES

    flags.DEFINE_string("run_dir", None, "Folder of the run; default: runs/<name of the flagfile>.")
    flags.DEFINE_list(
        "train_records",
        None,
        "Record sets to train on: GLOB[,GLOB ...].",
        required=train_records_required,
    )
    flags.DEFINE_list(
        "train_weights", None, "How often each record set is drawn from; default: equally."
    )
    flags.DEFINE_list(
        "label_fraction",
        ["1"],
        "Share of the frames whose truth is used, by --seed: one number, or one a record set. "
        "Others are drawn for --photometric and --consistency alone, and every second time then.",
    )
    flags.DEFINE_list("val_records", None, "Record sets to validate on: GLOB[,GLOB ...].")
    flags.DEFINE_string("label_set", "cityscapes", "Classes: a built-in name, or a JSON file.")
    flags.DEFINE_string(
        "init_from",
        None,
        "Weights to start from: a .keras file, a run folder (its best) or a packed one, or "
        "pretrained: those that come with the package (for --backbone efficientnet_lite0).",
    )
    flags.DEFINE_enum("backbone", "resnet50", BACKBONES, "The encoder.")
    flags.DEFINE_string(
        "backbone_weights", "none", "Start of the encoder: none, imagenet, or a weights file."
    )
    flags.DEFINE_enum(
        "freeze",
        "none",
        ["none", "norms", "encoder"],
        "What of the encoder stays as it starts: nothing; its batch norms, for pretrained weights "
        "and small batches; all of it, for short trainings on few frames.",
    )
    flags.DEFINE_enum(
        "learn",
        "both",
        ["both", "seg", "flow"],
        "Which of the decoder's streams learns; the other keeps its weights, and has no loss.",
    )
    flags.DEFINE_integer(
        "alternate",
        0,
        "One stream learns at a time, segmentation first, until its validation score has not got "
        "better in so many epochs of --steps_per_epoch (without validation: for so many); then "
        "the other. 0: both at once.",
        0,
    )
    flags.DEFINE_enum("exchange", "both", EXCHANGES, "Which stream gets the other's features.")
    flags.DEFINE_integer("steps", 10000, "Training steps in all.", 1)
    flags.DEFINE_integer(
        "steps_per_epoch",
        500,
        "Steps between validations, after which order and draws begin anew.",
        1,
    )
    flags.DEFINE_integer(
        "save_every", None, "Steps between checkpoints; default: --steps_per_epoch.", 1
    )
    flags.DEFINE_integer("keep_checkpoints", 2, "How many are kept.", 1)
    flags.DEFINE_integer(
        "patience",
        0,
        "End when neither seg/miou nor flow/aepe got better in so many validations; 0: never.",
        0,
    )
    flags.DEFINE_enum(
        "bad_records",
        "stop",
        ["stop", "skip"],
        "At a damaged record: stop; or look at all records first, and leave the bad ones out.",
    )
    flags.DEFINE_enum(
        "on_nonfinite",
        "stop",
        ["stop", "skip"],
        "At a loss or gradient that is no number: stop, or leave the step out.",
    )
    flags.DEFINE_float(
        "spike", 10.0, "Tell of a loss so many times the usual one, with its frames; 0: never.", 0
    )
    flags.DEFINE_bool(
        "deterministic", False, "Bit for bit the same each time, on one device; slower."
    )
    flags.DEFINE_integer("batch_size", 4, "Examples a step.", 1)
    flags.DEFINE_integer(
        "accumulate",
        1,
        "Batches whose mean gradient makes one change of weights, for large batches in little "
        "memory; each is a step, and norms see each alone.",
        1,
    )
    flags.DEFINE_integer("height", 256, "Rows of a training crop.", 32)
    flags.DEFINE_integer("width", 832, "Columns of a training crop.", 32)
    flags.DEFINE_float("alpha", 1.0, "Weight of the segmentation loss.", 0)
    flags.DEFINE_float("beta", 1.0, "Weight of the flow losses.", 0)
    flags.DEFINE_enum(
        "seg_loss",
        "mean",
        SEG_LOSSES,
        "Each pixel counts alike, or rare classes more: by 1 / sqrt(pixels of its class).",
    )
    flags.DEFINE_float(
        "photometric",
        0.0,
        "Weight, within --beta, of the flow loss that needs no truth: the second frame, warped, "
        "looks like the first, and flow is smooth. Costs a second pass of the decoder.",
        0,
    )
    flags.DEFINE_float(
        "consistency",
        0.0,
        "Weight, within --alpha, of the segmentation loss that needs no truth: what moves keeps "
        "its class. Costs a second pass of the decoder.",
        0,
    )
    flags.DEFINE_enum(
        "flow_loss", "log", FLOW_LOSSES, "End-point error, or 3 log(1 + epe / 2), the robust form."
    )
    flags.DEFINE_float("learning_rate", 8e-4, "Highest learning rate; a cosine ends it near 0.", 0)
    flags.DEFINE_integer("warmup_steps", 100, "Steps in which the learning rate rises.", 0)
    flags.DEFINE_float("weight_decay", 1e-4, "AdamW's, on kernels alone.", 0)
    flags.DEFINE_float("clip_norm", 0.1, "Largest norm of each weight's gradient; 0: any.", 0)
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16"],
        "Of the training's layers; bfloat16 is for GPUs that have it. Weights stay float32.",
    )
    flags.DEFINE_integer("seed", 0, "Of weights, order and augmentation.", 0)
    flags.DEFINE_float(
        "scale", 0.3, "Augmentation: images scaled by 2^s, s this far about --enlarge.", 0, 2
    )
    flags.DEFINE_float(
        "enlarge", 0.0, "Augmentation: middle of those s: over 0 for larger motion.", -1, 1
    )
    flags.DEFINE_float("stretch", 0.1, "Augmentation: aspect changed by 2^s, |s| up to this.", 0, 1)
    flags.DEFINE_float("flip", 0.5, "Augmentation: probability of a mirror image.", 0, 1)
    flags.DEFINE_float("colour", 0.5, "Augmentation: strength of colour jitter; 1 is RAFT's.", 0, 1)
    flags.DEFINE_float(
        "erase",
        0.3,
        "Augmentation: probability that parts of the second frame are blotted out.",
        0,
        1,
    )
    flags.DEFINE_bool(
        "made_flow",
        True,
        "Frames without a second one get a made one; learn its exact flow, or mask it.",
    )
    flags.DEFINE_enum(
        "best_metric", "loss", BEST_METRICS, "Validation score by which best.keras is kept."
    )
    flags.DEFINE_integer("pictures", 4, "Frames drawn for TensorBoard each epoch.", 0)


def check_training_flags(args):
    """Hold the training flags to each other.

    Raises:
        ValueError: naming those that do not go together.
    """
    if args.save_every and args.steps_per_epoch % args.save_every:
        raise ValueError(
            f"--save_every={args.save_every} must divide --steps_per_epoch={args.steps_per_epoch}"
        )
    if args.alternate and args.learn != "both":
        raise ValueError(f"--alternate is for both streams, --learn={args.learn} for one")
    if args.alternate and args.val_records and args.best_metric == "loss":
        raise ValueError(
            "--alternate: the loss is another one in each phase: say which score the best weights "
            "are kept by, as --best_metric seg/miou or flow/aepe"
        )


def define_run_flags(input_scale=True, instead=None):
    """Which trained run answers, with which weights, and (if asked for) at which size.

    `instead`: a flag of the command's own, defined before, that may stand in place of --run_dir.
    """
    flags.DEFINE_string("run_dir", None, "Folder of a trained run.")
    flags.DEFINE_enum(
        "weights",
        "best",
        ["best", "last", "pretrained"],
        "The run's by the best validation score, its last, or, in place of --run_dir, those that "
        "come with the package.",
    )
    sources = ["run_dir", *([instead] if instead else [])]

    def one_source(given):
        return sum(bool(given[n]) for n in sources) == (given["weights"] != "pretrained")

    choices = [*(f"--{name}" for name in sources), "--weights pretrained"]
    told = f"give the folder of a trained run; exactly one of {', '.join(choices)}"
    flags.register_multi_flags_validator([*sources, "weights"], one_source, told)
    if not input_scale:
        return
    flags.DEFINE_float(
        "input_scale",
        1.0,
        "Resize frames by this factor for the network; answers keep the frames' size.",
    )
    flags.register_validator("input_scale", lambda scale: scale > 0, "must be greater than 0")


def define_seg_ids():
    """Which numbers a written seg.png holds."""
    flags.DEFINE_enum(
        "seg_ids", "train", ["train", "label"], "Ids in seg.png: train ids or the data set's own."
    )


def augmentation(args):
    """The `augment.Augmentation` that the training flags ask for; its fields are named alike."""
    from flowseg.data.augment import Augmentation

    return Augmentation(**{name: getattr(args, name) for name in Augmentation._fields})


def flagfile_name(argv=None):
    """The name, without folder and suffix, of the first flagfile on the command line, or None."""
    argv = sys.argv if argv is None else argv
    for i, argument in enumerate(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "flagfile":
            value = value if equals else "".join(argv[i + 1 : i + 2])
            return Path(value).stem
    return None


def to_dict(args):
    """The training flags but the folder of the run: name -> value; lists as they are written."""
    own = args.get_key_flags_for_module(sys.modules[__name__])
    values = {flag.name: flag.value for flag in own if flag.name != "run_dir"}
    return {k: ",".join(v) if isinstance(v, list) else v for k, v in sorted(values.items())}


def to_text(args=None):
    """The training flags as a flagfile; what has no value is left out."""
    args = flags.FLAGS if args is None else args
    own = args.get_key_flags_for_module(sys.modules[__name__])
    lines = [flag.serialize() for flag in sorted(own, key=lambda flag: flag.name)]
    return "\n".join(line for line in lines if line) + "\n"


def define_device_flags():
    """Where to compute: not of the training, which is the same everywhere."""
    flags.DEFINE_enum(
        "devices",
        "one",
        ["one", "all"],
        "Compute on one device, or on all that TensorFlow or JAX finds; each takes its share of "
        "--batch_size.",
    )
    flags.DEFINE_integer(
        "hosts", 1, "With KERAS_BACKEND=jax: machines that train together, by this command each.", 1
    )
    flags.DEFINE_integer("host", 0, "Which of them this is; 0 keeps the run folder.", 0)
    flags.DEFINE_string("coordinator", None, "Where they meet: HOST:PORT, a free port of host 0.")

"""Defines streaming scores: mIoU and pixel accuracy for `seg`; AEPE and Fl-all for `flow`.

Scores are pooled over every valid pixel of the set, regardless of the sizes of frames and batches.
A score without any valid pixel (no labels, no valid flow) is NaN, never 0. Counts are exact: each
is stored in two integers, since float32 loses single pixels above 2^24 and JAX has no int64. (Their
type is Keras's "int". This is int64 on TensorFlow, which would place int32 variables on the CPU,
where XLA-compiled code on a GPU cannot use them.)
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from flowseg.data.labels import IGNORE_LABEL
from flowseg.scoring.flow_errors import end_point_error, is_outlier

_CARRY = 2**30


class _Scores(keras.metrics.Metric):
    """A metric with exact counters whose result is a dict of scores."""

    def _counter(self, name, shape=()):
        low, high = (
            self.add_variable(shape, initializer="zeros", dtype="int", name=f"{name}_{part}")
            for part in ("low", "high")
        )
        return low, high

    def _count(self, counter, number):
        low, high = counter
        total = low + ops.cast(number, low.dtype)
        carried = total // _CARRY
        low.assign(total - carried * _CARRY)
        high.assign(high + carried)

    def _total(self, counter):
        low, high = (ops.cast(part, "float32") for part in counter)
        return high * float(_CARRY) + low


def _ratio(part, total):
    """Return `part` / `total` in percent; NaN where `total` is 0."""
    # JAX does not accept Keras variables inside `where`.
    part, total = ops.convert_to_tensor(part), ops.convert_to_tensor(total)
    known = total > 0
    return ops.where(known, 100.0 * part / ops.where(known, total, 1.0), float("nan"))


def grouped_logits(
    logits: keras.KerasTensor | np.ndarray, groups: Sequence[int] | np.ndarray
) -> keras.KerasTensor:
    """Compute logits of broader classes: logarithms of the summed probabilities of their members.

    Args:
        logits: (..., C).
        groups: (C,) broader class of each class, from `class_groups`; 255 = in no group.

    Returns:
        (..., max group + 1) float32 log-probabilities (the probabilities do not sum to 1 if a class
        is in no group).
    """
    logits = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    count = max(int(g) for g in groups if g != IGNORE_LABEL) + 1
    members = ([i for i, g in enumerate(groups) if g == group] for group in range(count))
    return ops.stack(
        [ops.logsumexp(ops.take(logits, ids, -1), axis=-1) for ids in members], axis=-1
    )


@keras.saving.register_keras_serializable("flowseg")
class SegScores(_Scores):
    """`seg/miou`, `seg/pixel_accuracy` and, if requested, `seg/iou/<class>`, in percent.

    Uses one confusion matrix over the set. mIoU is the mean over classes with TP + FP + FN > 0 of
    TP / (TP + FP + FN); void pixels are not counted (cityscapesscripts,
    evalPixelLevelSemanticLabeling.py).

    Args:
        names: class names, by train id.
        per_class: whether the result has the IoU of every class.
    """

    def __init__(self, names, per_class=False, name="seg_scores", **kwargs):
        super().__init__(name=name, **kwargs)
        self.names = list(names)
        self.per_class = per_class
        self._confusion = self._counter("confusion", (len(names), len(names)))

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count a batch: (B, H, W) train ids (255 = ignore), (B, H, W, C) logits."""
        classes = len(self.names)
        y_true = ops.cast(y_true, "int32")
        predicted = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        # Void pixels go to an extra cell beyond the matrix.
        void = classes * classes
        cell = ops.where(y_true == IGNORE_LABEL, void, y_true * classes + predicted)
        cell = ops.reshape(cell, (-1,))
        counts = ops.segment_sum(ops.ones_like(cell), cell, num_segments=void + 1)
        self._count(self._confusion, ops.reshape(counts[:void], (classes, classes)))

    def confusion(self) -> keras.KerasTensor:
        """(C, C) float32 pixel counts: ground truth by row, prediction by column."""
        return self._total(self._confusion)

    def result(self):
        """Dict of scalars."""
        matrix = self.confusion()
        hits = ops.diagonal(matrix)
        union = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1) - hits
        iou = _ratio(hits, union)
        present = union > 0
        total = ops.sum(ops.where(present, iou, 0.0))
        scores = {
            "seg/miou": _ratio(total / 100.0, ops.sum(ops.cast(present, "float32"))),
            "seg/pixel_accuracy": _ratio(ops.sum(hits), ops.sum(matrix)),
        }
        if self.per_class:
            scores |= {f"seg/iou/{name}": iou[i] for i, name in enumerate(self.names)}
        return scores

    def get_config(self):
        """Keras's config plus `names` and `per_class`."""
        return {**super().get_config(), "names": self.names, "per_class": self.per_class}


@keras.saving.register_keras_serializable("flowseg")
class FlowScores(_Scores):
    """`flow/aepe` (pixels), `flow/fl_all` and `flow/fl_all_per_image` (percent).

    `fl_all` (see `flow_errors.is_outlier`) pools outliers over all valid pixels of the set;
    `fl_all_per_image` is the mean over images of each image's share.

    Args:
        suffix: appended to the names, for example "_noc".
    """

    def __init__(self, suffix="", name="flow_scores", **kwargs):
        super().__init__(name=name, **kwargs)
        self.suffix = suffix
        self._valid = self._counter("valid")
        self._outliers = self._counter("outliers")
        # Kahan summation, because float32 has to sum the errors of up to billions of pixels.
        self._error, self._lost, self._shares, self._images = (
            self.add_variable((), initializer="zeros", dtype="float32", name=name)
            for name in ("error", "lost", "shares", "images")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count a batch: (B, H, W, 3) (u, v, valid), (B, H, W, 2), in pixels."""
        error, valid = end_point_error(y_true, y_pred)
        outlier = is_outlier(y_true, error, valid)
        counts = ops.sum(ops.cast(valid, "int32"), axis=(1, 2))
        outliers = ops.sum(ops.cast(outlier, "int32"), axis=(1, 2))
        self._count(self._valid, ops.sum(counts))
        self._count(self._outliers, ops.sum(outliers))
        term = ops.sum(error) - self._lost
        total = self._error + term
        self._lost.assign((total - self._error) - term)
        self._error.assign(total)
        share = ops.cast(outliers, "float32") / ops.cast(ops.maximum(counts, 1), "float32")
        self._shares.assign(self._shares + ops.sum(share))
        self._images.assign(self._images + ops.sum(ops.cast(counts > 0, "float32")))

    def result(self):
        """Dict of scalars."""
        valid = self._total(self._valid)
        scores = {
            "flow/aepe": _ratio(self._error / 100.0, valid),
            "flow/fl_all": _ratio(self._total(self._outliers), valid),
            "flow/fl_all_per_image": _ratio(self._shares, self._images),
        }
        return {name + self.suffix: score for name, score in scores.items()}

    def get_config(self):
        """Keras's config plus `suffix`."""
        return {**super().get_config(), "suffix": self.suffix}

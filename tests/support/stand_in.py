"""A run without a network, for tests of code that only needs a run's predictions."""

from types import SimpleNamespace

from flowseg.data.labels import CITYSCAPES
from flowseg.media import pairs


def stand_in(predict, label_set=CITYSCAPES, **more):
    """Return an object with `predict`, the matching `stream`, `label_set`, and `more`.

    `predict` is called with two frames and scale=S.
    """

    def stream(frames, scale=1.0):
        return pairs.stream(
            frames,
            encode=lambda frame: frame,
            decode=lambda frame, following: predict(frame, following, scale=scale),
        )

    return SimpleNamespace(predict=predict, stream=stream, label_set=label_set, **more)

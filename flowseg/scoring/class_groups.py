"""Maps the classes of a label set to the broader classes of another one."""

import numpy as np

from flowseg.data.labels import IGNORE_LABEL, LabelSet, train_id_table


def class_groups(label_set: LabelSet, score_set: LabelSet) -> np.ndarray:
    """Map each class of `label_set` to the class of `score_set` that contains it, by label ids.

    Returns:
        (classes of label_set,) uint8; 255 where `score_set` has no such class.

    Raises:
        ValueError: the sets share no numbering, a class maps to several classes, or no class maps
            to a class of `score_set`.
    """
    common = [numbering for numbering in label_set.ids if numbering in score_set.ids]
    if not common:
        raise ValueError(
            f"label sets {label_set.name!r} and {score_set.name!r} have no numbering in common"
        )
    group_of_class = []
    for train_id, name in enumerate(label_set.names):
        # The first common numbering that has ids for the class.
        numbering = next((n for n in common if label_set.ids[n][train_id]), common[0])
        ids = label_set.ids[numbering][train_id]
        classes = sorted(set(train_id_table(score_set, numbering)[list(ids)].tolist())) or [
            IGNORE_LABEL
        ]
        if len(classes) > 1:
            raise ValueError(
                f"class {name!r} of {label_set.name!r} maps to {len(classes)} classes of "
                f"{score_set.name!r}: it cannot be scored with that set"
            )
        group_of_class += classes
    missing = sorted(set(range(len(score_set.names))) - set(group_of_class))
    if missing:
        named = ", ".join(repr(score_set.names[i]) for i in missing)
        raise ValueError(f"no class of {label_set.name!r} belongs to {named} of {score_set.name!r}")
    return np.array(group_of_class, np.uint8)

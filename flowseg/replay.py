"""Replay a training batch that caused an incident: print its losses and gradients.

python -m flowseg.replay --run_dir DIR --step N

The command reads DIR/incidents/step-N.npz, which the training wrote, and the newest checkpoint (the
weights at the step itself are not saved). It prints each loss of the batch, the share of known
ground truth in each frame, and the weights with the largest gradients.
"""

import json
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np
import tensorflow as tf

from flowseg.training import checkpoints, objective
from flowseg.training.tasks import JOINT

_SHOWN = 8


def read_batch(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Read the (inputs, targets) that a training step received.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        with np.load(path) as arrays:
            split = {"inputs": {}, "targets": {}}
            for name in arrays.files:
                kind, _, key = name.partition("/")
                split[kind][key] = arrays[name]
            return split["inputs"], split["targets"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: no readable incident batch ({error})") from error


def describe_batch(
    training: keras.Model, inputs: dict[str, np.ndarray], targets: dict[str, np.ndarray]
) -> list[str]:
    """Describe a batch's losses, ground truth and gradients under a compiled training model."""
    outputs = {name: JOINT.outputs[name] for name in training.output}
    inputs, targets = objective.target_map(outputs)(inputs, targets)
    with tf.GradientTape() as tape:
        predictions = training(inputs, training=True)
        loss = training.compute_loss(inputs, targets, predictions)
    lines = [f"loss {float(loss):.5g}"]
    for key, target in targets.items():
        loss_function = training.loss.get(key)
        if loss_function is not None:
            lines.append(f"  {key}: {float(loss_function(target, predictions[key])):.5g}")
    for n, (seg, flow) in enumerate(zip(targets["seg"], targets["flow"], strict=True)):
        lines.append(
            f"frame {n}: labels known {100 * np.mean(seg != 255):.1f} %, flow known "
            f"{100 * np.mean(flow[..., 2]):.1f} %, largest {np.abs(flow[..., :2]).max():.1f} px"
        )
    gradients = tape.gradient(loss, [v.value for v in training.trainable_variables])
    norms = [np.inf if g is None else float(tf.norm(g)) for g in gradients]
    norms = [np.inf if np.isnan(norm) else norm for norm in norms]
    ranked = sorted(zip(norms, training.trainable_variables, strict=True), key=lambda x: -x[0])
    lines += [f"gradient {norm:.4g}: {variable.path}" for norm, variable in ranked[:_SHOWN]]
    return lines


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("run_dir", None, "Run folder.", required=True)
    flags.DEFINE_integer("step", None, "Step of the incident.", 1, required=True)


def main():
    """Load the batch and the weights, and print the description."""
    args = flags.FLAGS
    run_dir = Path(args.run_dir)
    path = run_dir / "incidents" / f"step-{args.step:08d}.npz"
    inputs, targets = read_batch(path)
    state, folder = checkpoints.newest(run_dir / "checkpoints")
    if state is None:
        raise ValueError(f"{run_dir}: no checkpoint yet, so there are no weights to replay with")
    metadata = json.loads(path.with_suffix(".json").read_text())
    print(f"{metadata['kind']} at step {metadata['step']}: {', '.join(metadata['frames'])}")
    print(f"with the weights after step {state['step']}:")
    print("\n".join(describe_batch(checkpoints.network(folder), inputs, targets)))


if __name__ == "__main__":
    define_flags()
    entry.run(main)

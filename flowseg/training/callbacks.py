"""What a training does each time that Keras's epoch ends: weights for use, scores, when to end."""

import csv
import io

import keras
import numpy as np

from flowseg import files, runs

# Scores that are better when higher; all others when lower.
_HIGHER = ("seg/miou", "seg/pixel_accuracy")


class CopyWeights(keras.callbacks.Callback):
    """Gives the public network what was learnt, each epoch, before the others look at it.

    Args:
        trained: the network in training.
        network: the public one; may be the same.
    """

    def __init__(self, trained, network):
        super().__init__()
        self.trained = trained
        self.network = network

    def on_epoch_end(self, epoch, logs=None):
        """Copy."""
        if self.network is not self.trained:
            self.network.set_weights(self.trained.get_weights())


class KeepBest(keras.callbacks.Callback):
    """Writes the run's last and best weights, and the scores of the best, each whole or not at all.

    Where validation gives no such score there is no best: best.keras then holds the last weights.

    Args:
        run_dir: the run folder (pathlib.Path).
        network: the public two-output network, which alone is saved for use.
        best_metric: validation score, as in `flags.BEST_METRICS`.
        state: of the training; its `best` is the best score so far, None before the first.
    """

    def __init__(self, run_dir, network, best_metric, state):
        super().__init__()
        self.run_dir, self.network = run_dir, network
        self.best_metric, self.state = best_metric, state

    def on_epoch_end(self, epoch, logs=None):
        """Save; `logs` are Keras's."""
        runs.save_model(self.network, self.run_dir / runs.WEIGHTS["last"])
        score = logs.get(f"val_{self.best_metric}", np.nan)
        score = float(score) if np.isfinite(score) else None
        if not self._is_best(score):
            return
        self.state["best"] = score
        runs.save_model(self.network, self.run_dir / runs.WEIGHTS["best"])
        # Validation scores bare, under the names that evaluate gives; without, training's.
        validated = any(key.startswith("val_") for key in logs)
        prefix = "val_" if validated else ""
        scores = {k.removeprefix("val_"): float(v) for k, v in logs.items() if prefix in k}
        about = {"step": self.state["step"], "validated": validated}
        files.write_json(self.run_dir / "metrics.json", about | scores)

    def _is_best(self, score):
        best = self.state["best"]
        if best is None or score is None:
            return best is None
        return score > best if self.best_metric in _HIGHER else score < best


class Patience(keras.callbacks.Callback):
    """Ends the training when neither task has got better in so many validations.

    Args:
        patience: how many; 0 never ends it.
        state: of the training; its `tasks` says for each score its best and the validations since.
    """

    SCORES = ("seg/miou", "flow/aepe")

    def __init__(self, patience, state):
        super().__init__()
        self.patience, self.state = patience, state

    def on_epoch_end(self, epoch, logs=None):
        """Look at a validation's scores."""
        tasks = self.state["tasks"]
        for name in self.SCORES:
            score = logs.get(f"val_{name}", np.nan)
            if not np.isfinite(score):
                continue
            best, waits = tasks.get(name, (None, 0))
            better = _is_better(name, score, best)
            tasks[name] = [float(score), 0] if better else [best, waits + 1]
        if is_spent(tasks, self.patience):
            self.model.stop_training = True


def is_spent(tasks, patience):
    """Whether no task is to be waited for any more; see `Patience`."""
    return bool(patience and tasks) and all(waits >= patience for _, waits in tasks.values())


def _is_better(name, score, best):
    return best is None or (score > best if name in _HIGHER else score < best)


def begin_phase(learn, step):
    """The state of a phase that begins at a step, in which `learn` ("seg", "flow", "both") learns.

    `best` is its best validation score, `waits` counts the epochs since.
    """
    return {"learn": learn, "since": step, "best": None, "waits": 0}


class Alternate(keras.callbacks.Callback):
    """Ends a phase of alternating training when its stream has converged; then the other learns.

    So SegFlow is trained (Cheng et al., ICCV 2017), segmentation first. The encoder is of the
    stream of segmentation, as SegFlow's ResNet is: it stays while flow learns. A stream has
    converged when its validation score (seg/miou, flow/aepe) has not got better since the phase
    began in `args.alternate` epochs of `args.steps_per_epoch`; without such a score, after as many.
    It comes before `KeepState`, so that a checkpoint is of the phase that goes on from it.

    Args:
        args: the training's flags.
        state: of the training; its `phase` is as `begin_phase` gives it.
        switch: function without arguments that compiles the training anew for the state's phase.
    """

    def __init__(self, args, state, switch):
        super().__init__()
        self.args, self.state, self.switch = args, state, switch

    def on_epoch_end(self, epoch, logs=None):
        """Look at a validation's score; `logs` are Keras's."""
        step, phase = self.state["step"], self.state["phase"]
        if step % self.args.steps_per_epoch or step >= self.args.steps:
            return
        learn = phase["learn"]
        name = {"seg": "seg/miou", "flow": "flow/aepe"}[learn]
        score = logs.get(f"val_{name}", np.nan)
        if np.isfinite(score) and _is_better(name, score, phase["best"]):
            phase |= {"best": float(score), "waits": 0}
            return
        phase["waits"] += 1
        if phase["waits"] >= self.args.alternate:
            other = "flow" if learn == "seg" else "seg"
            self.state["phase"] = begin_phase(other, step)
            print(f"\nstep {step}: {learn} stays as it is now; {other} learns")
            self.switch()
            # Keras goes on by the new phase only when `fit` begins anew.
            self.model.stop_training = True


class History(keras.callbacks.Callback):
    """Writes history.csv: a line of scores each time that Keras's epoch ends.

    Args:
        path: the file. Of lines that are there, those of later steps than the state's go.
        state: of the training.
    """

    def __init__(self, path, state):
        super().__init__()
        self.path, self.state = path, state
        lines = csv.DictReader(path.read_text().splitlines()) if path.is_file() else []
        self.lines = [line for line in lines if int(line["step"]) <= state["step"]]

    def on_epoch_end(self, epoch, logs=None):
        """Write."""
        scores = {name: float(value) for name, value in sorted(logs.items())}
        self.lines.append({"step": self.state["step"], **scores})
        names = list(dict.fromkeys(name for line in self.lines for name in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.lines)
        files.write(self.path, text.getvalue())

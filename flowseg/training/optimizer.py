"""AdamW with warm-up, cosine decay and clipping, which discards NaN and Inf gradients."""

from collections.abc import Iterable

import keras

from flowseg.training.config import TrainingConfig


@keras.saving.register_keras_serializable("flowseg")
class GuardedAdamW(keras.optimizers.AdamW):
    """AdamW that sets all gradients of a step to zero if any of them is NaN or Inf.

    Thus one bad batch cannot corrupt the weights, on any backend. The step is still applied: the
    momentum and the weight decay move the weights. `skipped` counts such steps.

    Under a `tf.distribute` strategy, gradients are summed over the devices first, so that all
    devices skip together and the gradient of the whole batch is clipped. (Keras would clip each
    device's gradient and then sum.)

    Values that do not depend on the variable, such as the learning rate, are computed once per
    step. (Keras computes them for each variable.)
    """

    def build(self, variables):
        """Create the variables."""
        if not self.built:
            self.skipped = self.add_variable(
                (), name="skipped", dtype="int32", aggregation="only_first_replica"
            )
        super().build(variables)

    def apply(
        self,
        grads: Iterable[keras.KerasTensor | None],
        trainable_variables: list[keras.Variable] | None = None,
    ) -> None:
        """Apply one step; variables without a gradient (reached by no loss) stay unchanged."""
        if not self.built:
            self.build(trainable_variables)
        if trainable_variables is None:  # On JAX, where all variables have a gradient.
            trainable_variables = self._trainable_variables
        pairs = zip(grads, trainable_variables, strict=True)
        pairs = [(gradient, variable) for gradient, variable in pairs if gradient is not None]
        if keras.backend.backend() == "tensorflow":
            pairs = super()._all_reduce_sum_gradients(pairs)
        grads, variables = zip(*pairs, strict=True)
        finite = keras.ops.all(
            keras.ops.stack([keras.ops.all(keras.ops.isfinite(gradient)) for gradient in grads])
        )
        self.skipped.assign_add(keras.ops.cast(~finite, "int32"))
        return super().apply([keras.ops.where(finite, g, 0) for g in grads], list(variables))

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # Done in `apply`.

    def _clip_by_norm(self, values, axes=None):
        norm = keras.ops.sqrt(keras.ops.sum(keras.ops.square(values)))
        return values * self.clipnorm / keras.ops.maximum(norm, self.clipnorm)

    def _apply_weight_decay(self, trainable_variables):
        pass  # Done in `update_step`.

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        step = keras.ops.cast(self.iterations + 1, "float32")
        corrected = learning_rate * keras.ops.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        rates = (corrected, learning_rate)
        super()._backend_update_step(grads, trainable_variables, rates)

    def update_step(
        self,
        gradient: keras.KerasTensor,
        variable: keras.Variable,
        rates: tuple[keras.KerasTensor, keras.KerasTensor],
    ) -> None:
        """Update a variable and its moments.

        Args:
            gradient: gradient, of the variable's shape.
            variable: one of the variables for which the optimizer was built.
            rates: the step's learning rate with and without the moments' bias correction.
        """
        corrected, rate = rates
        index = self._get_variable_index(variable)
        first, second = self._momentums[index], self._velocities[index]
        if self.weight_decay and self._use_weight_decay(variable):
            self.assign_sub(variable, variable * self.weight_decay * rate)
        self.assign_add(first, (gradient - first) * (1 - self.beta_1))
        self.assign_add(second, (keras.ops.square(gradient) - second) * (1 - self.beta_2))
        self.assign_sub(variable, first * corrected / (keras.ops.sqrt(second) + self.epsilon))


def make_optimizer(config: TrainingConfig, since: int = 0) -> GuardedAdamW:
    """Create AdamW with warm-up and cosine decay for the steps from `since` to the last.

    These steps are scheduled like a run of that length; the peak learning rate is reduced in
    proportion to their number.
    """
    remaining = config.steps - since
    rate = config.learning_rate * (remaining / config.steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if config.warmup_steps else rate,
        max(1, remaining - config.warmup_steps),
        alpha=0.01,
        warmup_target=rate if config.warmup_steps else None,
        warmup_steps=config.warmup_steps,
    )
    # Clip each variable: with a global norm, one task's large gradient would slow the other.
    optimizer = GuardedAdamW(
        schedule,
        weight_decay=config.weight_decay,
        clipnorm=config.clip_norm or None,
        gradient_accumulation_steps=config.accumulate if config.accumulate > 1 else None,
    )
    # Weight decay would pull norms to zero, and does not help biases.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "sharpness", "damping"])
    return optimizer

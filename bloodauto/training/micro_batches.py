"""Training steps that take a batch in parts, where a whole one does not fit into memory."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class MicroBatchModel(keras.Model):
    """A model whose training step computes the gradient of a batch part by part, and then updates the weights once.

    The gradient is that of the whole batch: each part counts by its images. What differs from an undivided step is batch
    normalisation, which normalises each part by its own statistics and moves its averages once for each part. The parts are
    computed one after another, so that activations take the memory of one part; the gradients take that of the trained weights
    once more.

    Keras' own ``gradient_accumulation_steps`` is of its optimizers' ``apply``, which ``FusedOptimizer`` replaces, and counts
    steps: the schedule and the averages of weights would have to know of it. Here a step stays a step.

    Attributes:
        num_micro_batches: Into how many parts a batch is taken; 1: it is not divided.

    Example:
        >>> inputs = keras.Input((4,))
        >>> model = MicroBatchModel(inputs, keras.layers.Dense(2)(inputs))
        >>> model.num_micro_batches
        1
    """

    num_micro_batches: int = 1

    def train_step(self, data: Any) -> Any:
        """One update of the weights; called by Keras while it traces the step.

        Args:
            data: Images, targets and weights of a batch.
        """
        if self.num_micro_batches == 1:
            return super().train_step(data)
        images, targets, weights = keras.utils.unpack_x_y_sample_weight(data)
        total = tf.shape(images)[0]
        size = -(-total // self.num_micro_batches)
        variables = [variable.value for variable in self.trainable_variables]

        def add_part(start: Any, sums: Any) -> tuple[Any, Any]:
            stop = tf.minimum(start + size, total)
            gradients = self._gradients(images[start:stop], targets[start:stop], weights[start:stop])
            fraction = tf.cast(stop - start, tf.float32) / tf.cast(total, tf.float32)
            added = [
                total_gradient if gradient is None else total_gradient + tf.cast(fraction, gradient.dtype) * gradient
                for total_gradient, gradient in zip(sums, gradients, strict=True)
            ]
            return stop, added

        _, gradients = tf.while_loop(
            lambda start, _: start < total,
            add_part,
            (tf.constant(0), [tf.zeros_like(variable) for variable in variables]),
            # Two parts at a time would take the memory of a whole batch.
            parallel_iterations=1,
        )
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self.get_metrics_result()

    def _gradients(self, images: Any, targets: Any, weights: Any) -> list[Any]:
        """Gradients of a part's mean loss; the means of loss and metrics take the part in."""
        with tf.GradientTape() as tape:
            predictions = self(images, training=True)
            loss = self.compute_loss(x=images, y=targets, y_pred=predictions, sample_weight=weights, training=True)
            self._loss_tracker.update_state(loss, sample_weight=tf.shape(images)[0])
            scaled = self.optimizer.scale_loss(loss)
        self.compute_metrics(images, targets, predictions, sample_weight=weights)
        gradients: list[Any] = tape.gradient(scaled, self.trainable_variables)
        return gradients

"""Cache -> batched tf.data.Dataset; corruptions; stored features."""

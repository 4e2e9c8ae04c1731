"""Batched `tf.data.Dataset`s from the clip cache, corruptions, and stored features."""

"""The graph combines the scores of frames as Python does, and so do the signatures of a frame detector."""

import numpy as np
import pytest
import tensorflow as tf

from tfdetect.evaluation import aggregation as python
from tfdetect.serving import aggregation as graph

RULES = ("mean", "median", "max", "top:2", "top:100")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("frames", [1, 4, 7])
def test_clips_in_the_graph_are_as_in_python(rule, frames):
    output = np.random.default_rng(frames).normal(size=(3, frames, 2)).astype(np.float32)
    found = tf.function(lambda x: graph.of_clips(x, rule)).get_concrete_function(tf.TensorSpec((None, None, 2)))(output).numpy()
    np.testing.assert_allclose(found[:, 0], python.aggregate(output[..., 0], rule), rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], output[..., 1].mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_files_of_different_length_in_the_graph_are_as_in_python(rule):
    """The rows of a file need not follow each other, and file 2 has none."""
    random = np.random.default_rng(0)
    rows = random.permutation(np.repeat([0, 1, 3, 4], [1, 2, 5, 8])).astype(np.int64)
    output = random.normal(size=(len(rows), 2)).round(1).astype(np.float32)
    found = tf.function(lambda x, y: graph.of_files(x, rule, y, 5))(output, rows).numpy()
    for file in (0, 1, 3, 4):
        np.testing.assert_allclose(found[file, 0], python.aggregate(output[rows == file, 0], rule), rtol=1e-6)
        np.testing.assert_allclose(found[file, 1], output[rows == file, 1].mean(), rtol=1e-6)
    assert found[2].tolist() == [0, 0]

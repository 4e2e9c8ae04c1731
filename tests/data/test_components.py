"""Connected components against SciPy's."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tfdetect.data.components import first_of_component


def test_components_are_those_of_scipy_and_named_after_their_first_member():
    rng = np.random.default_rng(0)
    for edges in (0, 20, 60, 200):
        pairs = rng.integers(0, 100, (edges, 2))
        found = first_of_component([*([node] for node in range(100)), *pairs.tolist()])
        labels = connected_components(coo_array((np.ones(edges), pairs.T), shape=(100, 100)), directed=False)[1]
        assert [found[node] for node in range(100)] == [int(np.flatnonzero(labels == label)[0]) for label in labels]


def test_sets_of_names_join_through_shared_members_and_may_be_empty():
    assert first_of_component([["c", "b"], [], ["d"], ["a", "c", "c"]]) == {"a": "a", "b": "a", "c": "a", "d": "d"}

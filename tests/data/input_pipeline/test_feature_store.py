"""The feature store: complete parts only, extended and resumed."""

import numpy as np
import pytest

from tfdetect.data.input_pipeline import feature_store
from tfdetect.data.input_pipeline.feature_store import FeatureStore, add_missing


def test_rows_are_gathered_by_name_from_several_parts(tmp_path, rng):
    rows = rng.normal(size=(5, 3)).astype(np.float32)
    store = FeatureStore(tmp_path)
    store.add(["a:0", "b:0"], rows[:2])
    store.add(["c:0", "d:0", "e:0"], rows[2:])
    for found in (store, FeatureStore(tmp_path)):
        np.testing.assert_array_equal(found.gather(["e:0", "a:0", "c:0", "a:0"]), rows[[4, 0, 2, 0]])
    assert FeatureStore(tmp_path).gather([]).shape[0] == 0
    with pytest.raises(KeyError):
        store.gather(["z:0"])


def test_two_processes_may_add_rows_at_once(tmp_path):
    first, second = FeatureStore(tmp_path), FeatureStore(tmp_path)
    first.add(["a"], np.ones((1, 2)))
    second.add(["b"], np.zeros((1, 2)))
    np.testing.assert_array_equal(FeatureStore(tmp_path).gather(["a", "b"]), [[1, 1], [0, 0]])


def test_float16_halves_the_size_and_keeps_three_digits(tmp_path, rng):
    rows = rng.normal(size=(100, 64)).astype(np.float32)
    sizes = []
    for dtype in ("float32", "float16"):
        store = FeatureStore(tmp_path / dtype, dtype)
        store.add([str(number) for number in range(100)], rows)
        sizes.append(next((tmp_path / dtype).glob("*.npy")).stat().st_size)
        np.testing.assert_allclose(store.gather(["7", "3"]), rows[[7, 3]], rtol=1e-3)
        assert store.gather(["7"]).dtype == np.float32
    assert sizes[1] < 0.52 * sizes[0]


def test_incomplete_parts_are_ignored(tmp_path):
    FeatureStore(tmp_path).add(["a"], np.ones((1, 2)))
    (tmp_path / "000001-ffff.npy").write_bytes(b"half")  # killed before its names were written
    (tmp_path / ".part-xyz-000002-ffff.txt").write_text("c")
    assert list(FeatureStore(tmp_path).rows) == ["a"]


def test_only_missing_rows_are_computed_and_an_interrupt_loses_nothing(tmp_path):
    computed = []

    def embed(stores, indices):
        for index in indices:
            if len(computed) == 3:
                raise KeyboardInterrupt
            computed.append(index)
            yield [np.full((1, 2), index, np.float32)]

    names, steps = [f"{number}:0" for number in range(5)], []
    with pytest.raises(KeyboardInterrupt):
        add_missing([FeatureStore(tmp_path)], names, embed, steps.append)
    assert computed == [0, 1, 2] and sum(steps) == 3
    computed.clear()
    computed.extend([None] * 4)  # no more interrupts
    store = FeatureStore(tmp_path)
    add_missing([store], names, embed, steps.append)
    assert computed[4:] == [3, 4]
    np.testing.assert_array_equal(store.gather(names)[:, 0], range(5))
    add_missing([store], names, lambda stores, indices: pytest.fail("nothing is missing"), steps.append)


def test_several_stores_get_what_each_lacks_in_one_pass(tmp_path):
    stores, computed, steps = [FeatureStore(tmp_path / name) for name in "ab"], [], []
    stores[0].add(["x", "y"], np.full((2, 1), 9))

    def embed(numbers, indices):
        computed.append((numbers, indices))
        yield from ([np.full((1, 1 + number), index) for number in numbers] for index in indices)

    add_missing(stores, ["x", "y", "z"], embed, steps.append)
    assert computed == [((1,), [0, 1]), ((0, 1), [2])] and steps == [0, 1, 1, 1]
    reread = [FeatureStore(tmp_path / name).gather(["x", "y", "z"]).tolist() for name in "ab"]
    assert reread == [[[9], [9], [2]], [[0, 0], [1, 1], [2, 2]]]


def test_the_same_file_twice_is_computed_once(tmp_path):
    store, seen = FeatureStore(tmp_path), []

    def embed(stores, indices):
        seen.extend(indices)
        yield [np.arange(len(indices), dtype=np.float32)[:, None]]

    add_missing([store], ["a", "b", "a"], embed, lambda count: None)
    assert len(seen) == 2 and store.gather(["a", "b", "a"]).shape == (3, 1)


def test_many_rows_are_saved_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "MAX_PART_ROWS", 2)
    names = [str(number) for number in range(5)]
    embed = lambda stores, indices: ([np.full((1, 1), index)] for index in indices)  # noqa: E731
    add_missing([FeatureStore(tmp_path)], names, embed, lambda count: None)
    assert len(list(tmp_path.glob("*.npy"))) == 3
    np.testing.assert_array_equal(FeatureStore(tmp_path).gather(names)[:, 0], range(5))

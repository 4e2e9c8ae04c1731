"""Several trainings: pooled figures, spreads and learning curves whose values are known."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tfdetect.data import score_table
from tfdetect.evaluation import metrics, protocols
from tfdetect.evaluation.protocols import Aucs, Scored


def files(scores, labels, groups=None, sources=None, names=None):
    names = names if names is not None else [f"f{number}" for number in range(len(scores))]
    return pd.DataFrame({"path": names, "group": groups if groups is not None else names, "label": labels, "score": scores,
                         "source": sources if sources is not None else ["fake" if label else "real" for label in labels],
                         "probability": 1 / (1 + np.exp(-np.asarray(scores, float)))})  # fmt: skip


def drawn(random, gain, count=200, names=None):
    labels = np.arange(count) % 2
    return files(gain * labels + random.normal(size=count), labels, names=names)


def member(table, trained_on=100, **factors):
    value = roc_auc_score(table["label"], table["score"])
    figures = dict.fromkeys(protocols.FIGURES) | {"auc": value, "accuracy": 0.5 + factors["seed"] / 10}
    return Scored("-".join(map(str, factors.values())), factors, table, figures, trained_on)


def test_an_auc_and_its_interval_are_those_of_the_metrics():
    table = drawn(np.random.default_rng(0), 1.0)
    table["group"] = [f"g{number // 4}" for number in range(len(table))]
    found = Aucs({"a": table}).mean(["a"])
    assert found["auc"] == roc_auc_score(table["label"], table["score"])
    assert found["interval"] == pytest.approx(metrics.auc_interval(table["label"], table["score"], table["group"]))


def test_resamples_are_the_same_for_all_trainings():
    table = drawn(np.random.default_rng(0), 1.0)
    half = table.assign(score=table["score"] / 2).sample(frac=1, random_state=1)
    found = Aucs({"a": table, "b": half}).combine({"a": 1, "b": -1}, "difference")
    assert found == {"difference": 0, "interval": [0, 0]}, "the same ranking, in another order of rows"


def test_pooled_folds_and_spreads_over_seeds_and_folds():
    random = np.random.default_rng(0)
    names = [f"f{number}" for number in range(120)]
    members = [member(drawn(random, 1.5, 40, names[40 * fold : 40 * fold + 40]), fold=fold + 1, seed=seed)
               for seed in range(3) for fold in range(3)]  # fmt: skip
    found = protocols.across_folds(members)
    pooled = [pd.concat([each.files for each in members if each.factors["seed"] == seed]) for seed in range(3)]
    aucs = [roc_auc_score(rows["label"], rows["score"]) for rows in pooled]
    assert found["auc"] == pytest.approx(np.mean(aucs)) and found["sd_seeds"] == pytest.approx(np.std(aucs, ddof=1))
    assert list(found["by_seed"].values()) == pytest.approx(aucs) and (found["n_real"], found["n_fake"]) == (60, 60)
    assert found["interval"][0] < found["auc"] < found["interval"][1]
    assert found["figures"]["accuracy"] == pytest.approx({"mean": 0.6, "sd_seeds": 0.1, "sd_folds": 0, "lowest": 0.5,
                                                          "highest": 0.7})  # fmt: skip
    by_fold = [np.mean([each.metrics["auc"] for each in members if each.factors["fold"] == fold]) for fold in (1, 2, 3)]
    assert found["figures"]["auc"]["sd_folds"] == pytest.approx(np.std(by_fold, ddof=1))
    assert found["figures"]["ap"]["mean"] is None
    table = protocols.out_of_fold(members)
    assert sorted(table["path"]) == sorted(names) and table["fold"].value_counts().eq(40).all()
    seeds = table[["seed 0", "seed 1", "seed 2"]]
    assert np.allclose(seeds.mean(axis=1), table["score"]) and table["score"].is_monotonic_increasing is False
    by_path = pooled[1].set_index("path")["score"]
    assert np.array_equal(table["seed 1"], by_path[table["path"]])


def test_out_of_fold_predictions_are_a_table_of_scores(tmp_path):
    members = [member(drawn(np.random.default_rng(0), 1, 40, [f"{fold}-{number}" for number in range(40)]), fold=fold, seed=seed)
               for seed in (0, 1) for fold in (1, 2)]  # fmt: skip
    table = protocols.out_of_fold(members)
    table.to_csv(tmp_path / "p.csv", index=False)
    read = score_table.read(tmp_path / "p.csv", {})
    assert list(read.scores) == ["score"] and len(read.files) == 80 and read.probability is not None
    assert np.allclose(read.scores["score"], table["score"])
    wide = protocols.side_by_side([member(drawn(np.random.default_rng(seed), 1, 40), amount=1.0, seed=seed) for seed in (0, 1)])
    wide.to_csv(tmp_path / "w.csv", index=False)
    assert list(score_table.read(tmp_path / "w.csv", {}).scores) == ["1.0-0", "1.0-1"]


def test_sources_left_out():
    labels, sources = [0] * 40 + [1] * 20 + [1] * 20, ["real"] * 40 + ["a"] * 20 + ["b"] * 20
    reals = list(np.linspace(0, 1, 40))

    def trained_without(source):
        worse, better = [0.5] * 20, [2.0] * 20  # AUC 0.5 and 1
        return files(reals + (worse + better if source == "a" else better + [0.75] * 20), labels, sources=sources)

    members = [member(trained_without(name), left_out=name, seed=0) for name in "ab"]
    found = protocols.across_sources(members)
    unseen = {row["source"]: row["unseen"] for row in found["rows"]}
    assert unseen == pytest.approx({"a": 0.5, "b": 0.75}) and all(row["seen"] == 1 for row in found["rows"])
    assert found["worst"] == "a" and found["unseen"] == pytest.approx(0.625) and found["seen"] == 1
    assert found["difference"] == pytest.approx(-0.375) and found["difference_interval"][1] < 0
    assert [row["n_fake"] for row in found["rows"]] == [20, 20]


def curve(random, gains, seeds=3, count=2000, same=False):
    noise, names = random.normal(size=count), [f"f{number}" for number in range(count)]
    labels, members = np.arange(count) % 2, []
    for number, (amount, gain) in enumerate(gains.items()):
        for seed in range(seeds):
            own = 0 if same else 0.3 * random.normal(size=count)
            members.append(member(files(gain * labels + noise + own, labels, names=names), 100 * 2**number, amount=amount,
                                  seed=seed))  # fmt: skip
    return protocols.across_amounts(members)


def test_a_rising_curve_says_that_more_data_help():
    found = curve(np.random.default_rng(0), {0.25: 0.5, 0.5: 1.0, 1.0: 1.5})
    aucs = [row["auc"] for row in found["rows"]]
    slope = found["slope"]
    assert slope["verdict"] == "helps" and slope["slope"] == pytest.approx(aucs[2] - aucs[1]) and slope["doublings"] == 1
    assert 0 < slope["interval"][0] < slope["slope"] < slope["interval"][1]
    assert [row["trained_on"] for row in found["rows"]] == [100, 200, 400]


def test_the_slope_is_per_doubling():
    random = np.random.default_rng(0)
    small, large = (member(drawn(random, gain), size, amount=amount, seed=0) for gain, size, amount in
                    ((0.5, 50, 0.25), (1.5, 400, 1.0)))  # fmt: skip
    slope = protocols.across_amounts([large, small])["slope"]
    assert slope["doublings"] == 3 and slope["slope"] == pytest.approx((large.metrics["auc"] - small.metrics["auc"]) / 3)
    assert protocols.across_amounts([small])["slope"] is None


@pytest.mark.parametrize(("gains", "options", "verdict"), [
    ({0.5: 1.0, 1.0: 1.0}, {"same": True}, "hardly"),
    ({0.5: 1.0, 1.0: 1.02}, {"count": 60}, "unclear"),
    ({0.5: 1.5, 1.0: 1.0}, {}, "falls"),
    ({0.5: 9.0, 1.0: 99.0}, {}, "perfect")])  # fmt: skip
def test_verdicts_of_learning_curves(gains, options, verdict):
    assert curve(np.random.default_rng(0), gains, **options)["slope"]["verdict"] == verdict


def test_seeds_that_disagree_widen_the_interval_of_the_slope():
    low, high = protocols.widen(0.1, [0.08, 0.13], [0.1, 0.1, 0.1])
    assert (low, high) == pytest.approx((0.08, 0.13))
    low, high = protocols.widen(0.1, [0.08, 0.13], [0.0, 0.1, 0.2])
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert (low, high) == pytest.approx((0.1 - np.hypot(0.02, half), 0.1 + np.hypot(0.03, half)), rel=1e-5)


def test_a_curve_that_is_flat_is_called_rising_or_falling_in_about_5_of_100_cases():
    random = np.random.default_rng(0)
    found = [curve(random, {0.5: 1.0, 1.0: 1.0}, seeds=1, count=80)["slope"]["verdict"] for _ in range(40)]
    assert 1 <= sum(verdict in ("helps", "falls") for verdict in found) <= 5

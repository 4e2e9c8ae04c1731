"""What combining public detectors reaches, from a file of their scores, with whole generators held out.

    pip download --no-deps deepsafe-bench==1.0.0 && unzip deepsafe_bench-1.0.0-py3-none-any.whl
    python benchmarks/judge.py deepsafe/assets/predictions_medium.csv.gz

The file has 15,499 rows of images, videos and audio, a column `ensemble_score` of its authors' ensemble, and `prob_NAME` of 24
detectors. For each modality: the ensemble as it is given, then the detectors and combinations as `evaluate --predictions` judges
them. At last, the split of the authors: 30 % of the generators of images and of the sources of reals, drawn once, are held out of
the stack, which is compared with the best single detector on the files held out.
"""

import random
import sys
from pathlib import Path

import numpy as np

from tfdetect.data import score_table
from tfdetect.evaluation import metrics, stacking
from tfdetect.workflow.judge import FAILURES, compare, measure, print_table
from tfdetect.workflow.judged import Judged

PATTERN, ENSEMBLE, VERDICT = "prob_*", "ensemble_score", "ensemble_verdict"
THEIR_SEED, THEIR_SHARE = 42, 0.3


def main(path: Path) -> None:
    """Print the results."""
    words = score_table.read(path, {}, [VERDICT])
    verdict = measure(Judged(words, as_given=True).detectors[VERDICT])
    false = 1 - verdict["per_class"]["real"]["recall"]
    print(f"All files, verdicts of their ensemble: recall {verdict['per_class']['fake']['recall']:.3f}, false positive rate "
          f"{false:.3f}; {len(words.reasons[VERDICT])} of {len(words.files)} are undetermined")  # fmt: skip
    for modality in ("images", "audio", "video"):
        only = [f"modality={modality}"]
        own = measure(Judged(score_table.read(path, {}, [ENSEMBLE], only)).detectors[ENSEMBLE])
        print(f"\n{modality}: their ensemble, AUC {own['auc']:.4f} ({own['n']} files)")
        judged = Judged(score_table.read(path, {}, [PATTERN], only), coverage=0.95)
        tables, found = compare(judged)
        for title, table in tables.items():
            if title != FAILURES:
                print(f"\n{title}")
                print_table(table)
        for how, combinations in found["combinations"].items():
            print(f"{how}: " + ", ".join(f"{name} AUC {row['auc']:.4f}" for name, row in combinations.items()))
    their_split(path)


def their_split(path: Path) -> None:
    """Print the AUC of the stack and of the best single detector on generators and sources of reals that nothing was fitted to.

    As in the authors' `fit`: detectors with a score of more than half of all files, and the files that all of these scored.
    """
    table = score_table.read(path, {}, [PATTERN])
    scores = table.scores.loc[:, table.scores.notna().mean() > 0.5]
    usable = scores.notna().all(axis=1).to_numpy()
    scores, files = scores[usable], table.files[usable]
    sources = sorted(files["source"].unique())
    random.Random(THEIR_SEED).shuffle(sources)
    out = files["source"].isin(sources[: int(len(sources) * THEIR_SHARE)]).to_numpy()
    labels, scale = files["label"].to_numpy(), np.column_stack([stacking.to_log_odds(scores[name].to_numpy()) for name in scores])
    evidence = stacking.weigh_evidence(scale, labels, ~out)
    best = {name: metrics.auc(labels[out], scores[name][out]) for name in scores}
    name = max(best, key=lambda each: best[each])
    chosen = scores.columns[stacking.choose_best(evidence[~out], labels[~out])]
    for where, rows in (("the files fitted on", ~out), ("files held out", out)):
        found = stacking.stack(evidence[~out], labels[~out], evidence[rows])
        print(f"\nTheir split of {len(files)} files, {out.sum()} of them held out: stack on {where}, AUC "
              f"{metrics.auc(labels[rows], found):.4f}")  # fmt: skip
    print(f"Best single detector of the files held out: {name}, AUC {best[name]:.4f}; chosen on the others: {chosen}, AUC "
          f"{best[chosen]:.4f}")  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))

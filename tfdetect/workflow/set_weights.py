"""What the report shows of a model that joins several feature sets: how much each adds to the score."""

from typing import Any

import numpy as np
import pandas as pd

from tfdetect.detector import ReportExtras
from tfdetect.evaluation.metrics import auc
from tfdetect.plots import features as plots

TITLE = "Weight of each feature set, validation files"


def weights_of_sets(model: Any, features: np.ndarray, labels: np.ndarray) -> ReportExtras:
    """Return table and figure for stored features (rows, n) of validation files; nothing for a model without several sets."""
    table = set_weights(model, features, labels)
    if not len(table):
        return ReportExtras()
    return ReportExtras({TITLE: plots.set_weights(table)}, {TITLE: table}, (), {"feature_sets": table.to_dict("records")})


def set_weights(model: Any, features: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Return a row for each feature set of a model that joins several; no rows for other models.

    `share` is the standard deviation of what the set adds to the score of these files, divided by the sum over all sets. `alone`
    and `without` are the AUCs with all other sets, or with this one, at the mean of the training files; nothing is trained again.
    """
    import keras

    from tfdetect.models.layers.heads import SetScaling

    scaling = next((layer for layer in model.layers if isinstance(layer, SetScaling)), None)
    if scaling is None or not len(features):
        return pd.DataFrame()
    head = keras.Model(scaling.output, model.output)
    score = lambda x: keras.ops.convert_to_numpy(head(x))[:, 0]  # noqa: E731
    x = keras.ops.convert_to_numpy(scaling(features))
    full, rows = score(x), []
    for name, columns in scaling.parts():
        kept = np.zeros(x.shape[1], np.float32)
        kept[columns] = 1  # in scaled features, the mean of the training files is 0
        without = score(x * (1 - kept))
        rows.append([name, int(kept.sum()), (full - without).std(), auc(labels, score(x * kept)), auc(labels, without)])
    table = pd.DataFrame(rows, columns=["feature set", "features", "share", "AUC alone", "AUC without"])
    return table.assign(share=table["share"] / max(table["share"].sum(), 1e-12))

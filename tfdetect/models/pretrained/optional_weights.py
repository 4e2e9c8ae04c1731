"""What detectors with a field `weights` declare about it."""

from pathlib import Path


class OptionalWeights:
    """A base of detectors whose field `weights` is "none" for random weights, or names pretrained ones."""

    weights: str | Path

    @property
    def initial_weights(self) -> str:
        return str(self.weights)

    @property
    def offline_overrides(self) -> dict[str, str]:
        return {"weights": "none"}

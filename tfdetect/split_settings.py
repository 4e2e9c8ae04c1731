"""The values of --data.split and --data.hold_out."""

from collections.abc import Sequence

from tfdetect.errors import UserError

AUTO, NONE = "auto", "none"  # of --data.hold_out; a run keeps auto together with what it chose: (auto, NAME) or (auto, none)


def parse_shares(text: str) -> dict[str, float]:
    """Return the shares of --data.split, {"train": 0.8, "validation": 0.1, "test": 0.1} for "80/10/10".

    Raises UserError unless there are three that are above 0 and sum to 100.
    """
    try:
        shares = [float(part) for part in text.split("/")]
    except ValueError:
        shares = []
    if len(shares) != 3 or not min(shares) > 0 or not abs(sum(shares) - 100) < 1e-6:
        raise UserError("--data.split must be three percentages above 0 that sum to 100, for training, validation and test, such "
                        f"as 80/10/10, got {text!r}.")  # fmt: skip
    return dict(zip(("train", "validation", "test"), (share / 100 for share in shares), strict=True))


def check(split: str, hold_out: Sequence[str]) -> None:
    """Raise UserError if one of the two is not valid."""
    parse_shares(split)
    if not hold_out or (NONE in hold_out and tuple(hold_out) not in ((NONE,), (AUTO, NONE))):
        raise UserError(f"--data.hold_out must be auto, none or names of sources, got {' '.join(hold_out) or 'nothing'}.")

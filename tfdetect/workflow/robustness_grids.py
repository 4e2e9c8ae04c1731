"""The grids of `evaluate --robustness`: lists of corruptions, by name or written out; their sources are in docs/robustness.md.

This module imports nothing heavy, so a mistake is reported before TensorFlow is loaded.
"""

from collections import defaultdict
from collections.abc import Sequence

from tfdetect import corruption_spec
from tfdetect.corruption_spec import CORRUPTIONS, CorruptionStep
from tfdetect.errors import UserError, nearest

FLAG = "--robustness"
UNCHANGED = ""  # the corruption of no steps


def each(template: str, *values: float) -> tuple[str, ...]:
    """Return a corruption with each of these values in place of {}."""
    return tuple(template.format(value) for value in values)


SOCIAL = ("max_side(1600)|jpeg(75)|max_side(1080)|jpeg(70)", *each("resize({0})|jpeg(75)|resize({0})|jpeg(75)", 0.9, 0.7, 0.5))
QUALITIES = range(90, 20, -10)
GRIDS: dict[str, tuple[str, ...]] = {
    "standard": (*each("jpeg({})", *QUALITIES), *each("webp({})", 90, 70, 50, 30), *each("avif({})", 90, 70, 50, 30),
                 *each("blur({})", 0.5, 1, 2, 3), *each("resize({})", 0.25, 0.5, 0.75, 1.5, 2), *each("crop({})", 0.9, 0.7, 0.5),
                 *each("noise({})", 2, 5, 10, 20), *each("brightness({})", -60, -30, 30, 60), *SOCIAL),
    "social": SOCIAL,
    "video": (*each("h264({})", 18, 23, 28, 34, 40), *each("hevc({})", 18, 23, 28, 34, 40), *each("fps({})|h264(23)", 15, 8),
              *each("resize({})|h264(23)", 0.75, 0.5, 0.25), "max_side(1280)|h264(28)|max_side(854)|h264(28)"),
    "univfd": (*each("jpeg({})", 100, *QUALITIES), *each("blur({})", 1, 2, 3, 4)),
    "genimage": (*each("side({})", 112, 64), *each("jpeg({})", 65, 30), *each("blur({})", 3, 5)),
    "aigcdetect": ("jpeg(95)", "blur(1)", "resize(0.5)"),
    "case": ("jpeg(90)", "jpeg(70)", "webp(80)", "resize(0.5)", "blur(1)", SOCIAL[0]),
    "case_video": ("h264(23)", "h264(28)", "hevc(28)", "resize(0.5)|h264(23)", "fps(15)|h264(23)",
                   "max_side(1280)|h264(28)|max_side(854)|h264(28)"),
    "vipcup": ("square_crop(0.625,1)|side(200)|jpeg(65,100)",),
}  # fmt: skip


def parse(words: Sequence[str]) -> tuple[str, ...]:
    """Return the corruptions of these grids and texts, each once, in a normalised form. Raises UserError if one is invalid."""
    texts = [text for word in words for text in GRIDS.get(word) or [_check(word)]]
    return tuple(dict.fromkeys(str(corruption_spec.parse(text)) for text in texts))


def select(words: Sequence[str], has_images: bool, has_videos: bool) -> tuple[str, ...]:
    """Return the corruptions to apply: those of `parse` or, without words, of the grids `standard` for images and `video` for
    videos. Raises UserError if one of them is for videos and there is none."""
    texts = parse(words or ["standard"] * has_images + ["video"] * has_videos)
    if not has_videos and (wrong := list(filter(encodes_video, texts))):
        raise UserError(f"{FLAG}: {', '.join(wrong)} can only be applied to videos, and there is none among the files.")
    return texts


def encodes_video(text: str) -> bool:
    """Return whether a corruption encodes whole videos, so that it does not apply to images."""
    return corruption_spec.parse(text).encodes_video


def _check(word: str) -> str:
    """Return a corruption. Raises UserError if it is invalid, and names the grids."""
    try:
        spec = corruption_spec.parse(word)
    except UserError as error:
        meant = nearest(word, GRIDS)
        hint = f" Perhaps you meant the grid {meant}." if meant else f" The grids are {', '.join(GRIDS)}."
        raise UserError(f"{FLAG}: {error}{hint}") from None
    if not spec:
        raise UserError(f"{FLAG}: an empty text is no corruption; the unchanged files are scored anyway.")
    if not spec.preserves_labels:
        raise UserError(f"{FLAG}: {word} changes labels, so it can only be used for training.")
    return word


def curves(texts: Sequence[str]) -> dict[str, tuple[str, float | None]]:
    """Return the curve that each corruption is a point of, and its strength there.

    Corruptions with the same steps that differ in one value make up a curve, named like "jpeg(quality)" or
    "resize(scale)|h264(23)"; several steps may share that value. A chain that belongs to no curve is one of its own, of strength
    None.
    """
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    steps = {text: corruption_spec.parse(text).steps for text in texts}
    for text in texts:
        alike[tuple(step.name for step in steps[text])].append(text)
    found: dict[str, tuple[str, float | None]] = {}
    for members in alike.values():
        single = len(steps[members[0]]) == 1
        places = [n for n, values in enumerate(zip(*(steps[text] for text in members), strict=True)) if len(set(values)) > 1]
        for text in members:
            varying = {steps[text][place] for place in places} or (set(steps[text]) if single else set())
            step = varying.pop() if len(varying) == 1 else None
            is_point = step is not None and step.low == step.high and CORRUPTIONS[step.name].parameter
            found[text] = (_curve(steps[text], places or [0]), step.low) if step and is_point else (text, None)
    return {text: found[text] for text in texts}


def _curve(steps: Sequence[CorruptionStep], places: Sequence[int]) -> str:
    """Return the name of a curve, in which the parameter of these steps stands for their value."""
    return "|".join(f"{step.name}({CORRUPTIONS[step.name].parameter})" if place in places else str(step)
                    for place, step in enumerate(steps))  # fmt: skip

"""Heat-maps of the regions that drive a score, and a deletion check of whether they really do.

`score_clips` is any function from uint8 RGB clips (batch, frames, height, width, 3) to float32 scores (batch,), where a higher
score means more likely fake. `clip` is one clip without the batch axis, (frames, height, width, 3). Its heat-map is float32
(height, width) and applies to all its frames.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tfdetect.evaluation import metrics

ScoreFunction = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
BATCH_SIZE = 32


def occlusion_map(score_clips: ScoreFunction, clip: NDArray[np.uint8], cells: int = 4) -> NDArray[np.float32]:
    """Return how much the score drops when each pixel is hidden: positive where the clip looks fake, negative where real.

    A rectangle of 1/cells of the height and width moves in steps of half its size; each pixel receives the mean drop of the
    rectangles that covered it. Source: Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014
    (arXiv 1311.2901).
    """
    masks = square_masks(clip.shape[1], clip.shape[2], cells)
    drops = score_drops(score_clips, clip, masks)
    return (np.tensordot(drops, masks, 1) / masks.sum(axis=0)).astype(np.float32)


def square_masks(height: int, width: int, cells: int) -> NDArray[np.bool_]:
    """Return masks (positions, height, width) of rectangles of 1/cells of each side that overlap by half and cover every pixel.

    Raises ValueError if `cells` is below 1 or above the number of pixels of the shorter side.
    """
    if not 1 <= cells <= min(height, width):
        raise ValueError(f"Squares per side must be 1 to {min(height, width)}, the shorter side in pixels; got {cells}.")
    bands = []
    for side in (height, width):
        starts = np.linspace(0, side - side / cells, 2 * cells - 1)
        bands.append((np.arange(side) >= np.floor(starts)[:, None]) & (np.arange(side) < np.ceil(starts + side / cells)[:, None]))
    return (bands[0][:, None, :, None] & bands[1][None, :, None, :]).reshape(-1, height, width)


def score_drops(score_clips: ScoreFunction, clip: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return how much the score drops when the pixels of each mask are hidden: (masks,), in units of the score."""
    batches = [score_clips(fill_with_mean(clip, masks[start : start + BATCH_SIZE])) for start in range(0, len(masks), BATCH_SIZE)]
    return score_clips(clip[None])[0] - np.concatenate(batches)


def fill_with_mean(clip: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return one clip per mask, (masks, frames, height, width, 3), with the masked pixels replaced by their mean colour.

    The mean is taken in each frame. Each mask must cover at least one pixel.
    """
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    mean = np.tensordot(flat, clip.reshape(len(clip), -1, 3), (1, 1)) / flat.sum(axis=1)[:, None, None]
    return np.where(masks[:, None, :, :, None], np.round(mean).astype(np.uint8)[:, :, None, None], clip)


def hottest(heatmap: NDArray[np.floating], share: float) -> NDArray[np.bool_]:
    """Return a mask of the hottest `share` of the pixels, shaped as the heat-map; at least one pixel."""
    rank = np.argsort(heatmap, axis=None, kind="stable").argsort(kind="stable")
    return (rank >= heatmap.size - max(1, round(share * heatmap.size))).reshape(heatmap.shape)


def deletion_check(score_clips: ScoreFunction, clip: NDArray[np.uint8], heatmap: NDArray[np.floating], share: float = 0.1,
                   draws: int = 16, seed: int = 0) -> tuple[float, float]:  # fmt: skip
    """Return the score drops when hiding the hottest `share` of the pixels, and when hiding the same shape elsewhere.

    The shape is the same in all frames: one that moved would be a change over time, which is what some detectors look for. The
    second value is the median over `draws` random cyclic shifts of the shape. For a meaningful heat-map the first value is
    clearly larger.
    """
    shape = hottest(heatmap, share)
    shifts = np.random.default_rng(seed).integers(0, heatmap.shape, (draws, 2))
    masks = np.stack([shape, *(np.roll(shape, tuple(shift), (0, 1)) for shift in shifts)])
    drops = score_drops(score_clips, clip, masks)
    return float(drops[0]), float(np.median(drops[1:]))


def curve_areas(score_clips: ScoreFunction, clip: NDArray[np.uint8], heatmap: NDArray[np.floating],
                steps: int = 10) -> dict[str, float]:  # fmt: skip
    """Return the areas under the curves of deletion and insertion, in units of the score.

    Petsiuk, Das and Saenko, "RISE: Randomized input sampling for explanation of black-box models", 2018 (arXiv 1806.07421): the
    score while pixels are hidden from the hottest on, and while they are shown from the hottest on, over the share of pixels
    from 0 to 1. A good map of a fake has a small area of deletion and a large one of insertion. Hidden pixels, the same
    ones in all frames, take their mean colour.
    """
    shapes = [hottest(heatmap, share) for share in np.linspace(0, 1, steps + 1)[1:]]
    masks = np.stack([*shapes, *(~shape for shape in shapes[:-1])])
    batches = [fill_with_mean(clip, masks[start : start + BATCH_SIZE]) for start in range(0, len(masks), BATCH_SIZE)]
    scores = np.concatenate([score_clips(clip[None]), *map(score_clips, batches)]).astype(np.float64)
    all_shown, deletion, insertion = scores[:1], scores[: steps + 1], scores[steps + 1 :]
    insertion = np.concatenate([deletion[-1:], insertion, all_shown])
    return {"deletion": float(np.trapezoid(deletion) / steps), "insertion": float(np.trapezoid(insertion) / steps)}


def random_map(height: int, width: int, cells: int, seed: int = 0) -> NDArray[np.float32]:
    """Return a heat-map (height, width) of nothing, about as smooth as one of occlusion with so many cells: the control."""
    import cv2

    noise = np.random.default_rng(seed).standard_normal((2 * cells - 1, 2 * cells - 1)).astype(np.float32)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def localisation(heatmap: NDArray[np.floating], region: NDArray[np.bool_]) -> dict[str, float]:
    """Return how well heat-maps (frames, height, width) find regions (frames, height, width): the mean over the frames.

    Frames whose region is empty or everything do not count; {} if there are no others.

    pixel_auc: the probability that a pixel of the region is hotter than one outside, ties counting half; chance is 0.5.
    pointed: whether the hottest pixel is in the region, or the share of the hottest that are if several are equal (the pointing
    game, Zhang et al. 2018, arXiv 1608.00507, without its tolerance of 15 pixels).
    """
    pairs = [(heat, forged) for heat, forged in zip(heatmap, region, strict=True) if forged.any() and not forged.all()]
    if not pairs:
        return {}
    aucs = [metrics.auc(forged.ravel().astype(int), heat.ravel()) for heat, forged in pairs]
    return {"pixel_auc": float(np.mean(np.array(aucs, float))),
            "pointed": float(np.mean([forged[heat == heat.max()].mean() for heat, forged in pairs]))}  # fmt: skip

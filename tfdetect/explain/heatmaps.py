"""Heat-maps: how much each place of a clip has to do with its score, and whether that is true.

`judge` is any function from uint8 clips (batch, frames, height, width, 3) RGB to scores (batch,), higher is more likely fake. A
clip here is one of them, uint8 (frames, height, width, 3); its heat-map is (height, width) float32, the same for all its frames.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ScoreFunction = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
BATCH_SIZE = 32


def occlusion_map(judge: ScoreFunction, clip: NDArray[np.uint8], cells: int = 4) -> NDArray[np.float32]:
    """What covering a place takes from the score, in its unit: above 0 where the picture speaks for fake, below 0 for real.

    A square of 1/cells of each side moves by half of itself; each pixel has the mean of the squares that covered it. Zeiler and
    Fergus, "Visualizing and understanding convolutional networks", 2014 (arXiv 1311.2901).
    """
    masks = square_masks(clip.shape[1], clip.shape[2], cells)
    taken = score_drops(judge, clip, masks)
    return (np.tensordot(taken, masks, 1) / masks.sum(axis=0)).astype(np.float32)


def square_masks(height: int, width: int, cells: int) -> NDArray[np.bool_]:
    """(places, height, width): squares of 1/cells of each side, moved by half of it, that together cover every pixel. ValueError
    for squares of less than a pixel."""
    if not 1 <= cells <= min(height, width):
        raise ValueError(f"Squares per side must be 1 to {min(height, width)}, the pixels of a side; got {cells}.")
    bands = []
    for side in (height, width):
        at = np.linspace(0, side - side / cells, 2 * cells - 1)
        bands.append((np.arange(side) >= np.floor(at)[:, None]) & (np.arange(side) < np.ceil(at + side / cells)[:, None]))
    return (bands[0][:, None, :, None] & bands[1][None, :, None, :]).reshape(-1, height, width)


def score_drops(judge: ScoreFunction, clip: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(masks,): what covering the pixels of each mask takes from the score."""
    parts = [judge(fill_with_mean(clip, masks[start : start + BATCH_SIZE])) for start in range(0, len(masks), BATCH_SIZE)]
    return judge(clip[None])[0] - np.concatenate(parts)


def fill_with_mean(clip: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(masks, frames, height, width, 3): under each mask, of a pixel at least, the mean colour of what it hides in each frame."""
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    mean = np.tensordot(flat, clip.reshape(len(clip), -1, 3), (1, 1)) / flat.sum(axis=1)[:, None, None]
    return np.where(masks[:, None, :, :, None], np.round(mean).astype(np.uint8)[:, :, None, None], clip)


def deletion_check(judge: ScoreFunction, clip: NDArray[np.uint8], heat: NDArray[np.floating], share: float = 0.1, draws: int = 16,
          seed: int = 0) -> tuple[float, float]:  # fmt: skip
    """(what covering the hottest `share` of the pixels takes from the score, the median of what covering elsewhere takes).

    Elsewhere is the same shape, moved at random and round the edges, `draws` times. A heat-map that means anything takes much
    more than its shape does elsewhere.
    """
    rank = np.argsort(heat, axis=None, kind="stable").argsort(kind="stable")
    hot = rank.reshape(heat.shape) >= heat.size - max(1, round(share * heat.size))
    moves = np.random.default_rng(seed).integers(0, heat.shape, (draws, 2))
    taken = score_drops(judge, clip, np.stack([hot, *(np.roll(hot, tuple(move), (0, 1)) for move in moves)]))
    return float(taken[0]), float(np.median(taken[1:]))

"""Self-blended images: a fake made of one real face (Shiohara and Yamasaki, CVPR 2022, arXiv 2204.08376).

A copy of the face is moved a little and blended into the picture inside a mask that follows the face; before, either the copy or
the picture is recoloured and coarsened or sharpened. What a detector can learn from such a pair is what face swaps have in
common: a border of blending, and two halves of a face that differ in colour, sharpness and position.

The numbers are those of the paper and of the authors' code (mapooon/SelfBlendedImages), except where a comment says otherwise.
They take the outline of a face from 81 landmarks; here it is a template that is laid over YuNet's five points.
"""

from collections.abc import Sequence

import cv2
import numpy as np

RATIOS = (0.25, 0.5, 0.75, 1, 1, 1)  # weight of the copy; all equally likely
MASK_SIDES = (192, 256)  # pixels, of the canvas on which a mask is drawn; its height and width differ
EDGE_KERNELS = range(5, 26, 2)  # pixels of the canvas: of the two blurs of a mask, the first of which shrinks it
EDGE_SIGMAS = range(5, 46)  # pixels of the canvas, of the second blur
ELASTIC_ALPHA, ELASTIC_SIGMA = 50, 7  # pixels of the canvas
SHIFT, MIN_SCALE = (0.03, 0.015), 0.95  # of the copy: shift in shares of width and height, scale up to 1 / MIN_SCALE
RGB_SHIFT, RGB_SHARE = 20, 0.3  # levels, and the share of draws that shift the channels
HSV_SHIFT = (4, 10, 10)  # levels of OpenCV's 8 bits; ours, as the published 0.3 of a level has no effect
CONTRAST = 0.1  # share of the contrast, and of 255 levels of brightness
COARSENESS, SHARPENING, LIGHTNESS = (2, 4), (0.2, 0.5), (0.5, 1.0)

# A frontal face with its origin midway between the eyes, in halves of the distance between the pupils (about 31 mm), y downwards;
# the left half mirrors the right one. Proportions of an average adult; ours.
EYE, NOSE, MOUTH_CORNER = (1.0, 0.0), (0.0, 1.2), (0.8, 2.15)
JAW = ((2.1, -0.3), (2.1, 0.6), (2.0, 1.5), (1.75, 2.3), (1.35, 2.95), (0.8, 3.4), (0.0, 3.55))
FOREHEAD = ((2.0, -0.9), (1.7, -1.5), (1.1, -1.95), (0.0, -2.1))
BROWS = ((1.8, -0.5), (1.45, -0.85), (1.0, -0.95), (0.4, -0.75))
LIDS = ((1.6, 0.1), (1.2, 0.4), (0.5, 0.35))
NOSTRILS = ((0.35, -0.2), (0.65, 1.1), (0.5, 1.45), (0.0, 1.55))
LIPS = ((0.95, 2.15), (0.45, 1.8), (0.6, 2.6), (0.0, 2.75))
# A mask is the union of the hulls of these groups: the whole face, without forehead, its middle, parts of it, its lower half.
SHAPES = (((*JAW, *FOREHEAD),), ((*JAW, *BROWS),), ((*BROWS, *LIDS, *NOSTRILS, *LIPS),),
          ((*BROWS, *LIDS, *NOSTRILS), (*LIPS, JAW[-1])), ((*NOSTRILS[1:], *JAW[2:]),))
DEFORMATION = 0.12  # standard deviation of the random displacement of each outline point, in the unit of the template; ours
FIVE_POINTS = np.array([(-EYE[0], EYE[1]), EYE, NOSE, (-MOUTH_CORNER[0], MOUTH_CORNER[1]), MOUTH_CORNER])
# Of a face in the crop that `--data.faces yunet` makes, as shares of its sides, (5, 2); means over FFHQ photographs.
TYPICAL_POINTS = np.array([(0.37, 0.445), (0.63, 0.445), (0.5, 0.6), (0.39, 0.72), (0.61, 0.72)])


def self_blend(frame: np.ndarray, points: np.ndarray, seed: Sequence[int], recolour_frame: bool = True) -> np.ndarray:
    """Return a fake made of a face crop (height, width, 3) uint8 RGB; `points` (5, 2) are its landmarks in pixels.

    The order of the points is that of `faces.detect`. `seed` determines all draws. In half of them, the copy is recoloured; in
    the others the frame, unless `recolour_frame` is False.
    """
    draw = np.random.default_rng(seed)
    recolours_copy = draw.random() < 0.5 or not recolour_frame
    changed = recolour(frame, draw)
    copy, target = (changed, frame) if recolours_copy else (frame, changed)
    scale, shift = draw.uniform(MIN_SCALE, 1 / MIN_SCALE, 2), draw.uniform(-1, 1, 2) * SHIFT
    mask = soften(warp(draw_mask(points / frame.shape[1::-1], draw), scale, shift), draw)
    mask = cv2.resize(mask, frame.shape[1::-1])[..., None] * draw.choice(RATIOS)
    return to_uint8(target + mask * (warp(copy, scale, shift).astype(np.float32) - target))


def recolour_some(frame: np.ndarray, seed: Sequence[int]) -> np.ndarray:
    """Return a real frame (height, width, 3) uint8 RGB, recoloured as often as those of fakes are, so that this tells nothing."""
    draw = np.random.default_rng(seed)
    return recolour(frame, draw) if draw.random() < 0.5 else frame


def recolour(frame: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return a (height, width, 3) uint8 RGB frame with other colours, brightness and contrast, either coarsened or sharpened."""
    shift = draw.uniform(-RGB_SHIFT, RGB_SHIFT, 3) * (draw.random() < RGB_SHARE)
    hsv = cv2.cvtColor(to_uint8(frame + shift), cv2.COLOR_RGB2HSV).astype(np.int16)
    hsv += draw.integers(np.negative(HSV_SHIFT), HSV_SHIFT, endpoint=True, dtype=np.int16)
    hue, rest = hsv[..., :1] % 180, hsv[..., 1:].clip(0, 255)
    pixels = cv2.cvtColor(np.concatenate([hue, rest], 2).astype(np.uint8), cv2.COLOR_HSV2RGB)
    contrast, brightness = draw.uniform(-CONTRAST, CONTRAST, 2)
    pixels = to_uint8(pixels * np.float32(1 + contrast) + np.float32(255 * brightness))
    return coarsen(pixels, draw.choice(COARSENESS)) if draw.random() < 0.5 else sharpen(pixels, draw)


def coarsen(frame: np.ndarray, factor: int) -> np.ndarray:
    """Keep every `factor`-th pixel, and enlarge the result back."""
    height, width = frame.shape[:2]
    small = cv2.resize(frame, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_NEAREST)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def sharpen(frame: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Mix a sharpened copy into the frame."""
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 8 + draw.uniform(*LIGHTNESS)
    identity = np.zeros((3, 3))
    identity[1, 1] = 1
    alpha = draw.uniform(*SHARPENING)
    return cv2.filter2D(frame, -1, (1 - alpha) * identity + alpha * kernel)


def warp(image: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Scale an image about its centre, then shift it by shares of its sides; x comes first. The border is mirrored."""
    size = np.array(image.shape[1::-1])
    matrix = np.column_stack([np.diag(scale), (0.5 - 0.5 * scale + shift) * size])
    border = cv2.BORDER_REFLECT_101 if image.ndim == 3 else cv2.BORDER_CONSTANT
    return cv2.warpAffine(image, matrix, (int(size[0]), int(size[1])), borderMode=border)


def draw_mask(points: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return a mask (height, width) float32 in 0..1 on a canvas with MASK_SIDES; `points` (5, 2) are shares of its sides."""
    size = draw.integers(*MASK_SIDES, 2, endpoint=True)
    to_canvas = np.linalg.lstsq(np.column_stack([FIVE_POINTS, np.ones(5)]), points * size, rcond=None)[0]
    mask = np.zeros(size[::-1], np.float32)
    for group in SHAPES[draw.integers(len(SHAPES))]:
        outline = np.concatenate([group, np.multiply(group, (-1, 1))])
        outline = outline + draw.normal(0, DEFORMATION, outline.shape)
        hull = cv2.convexHull((np.column_stack([outline, np.ones(len(outline))]) @ to_canvas).astype(np.float32))
        cv2.fillConvexPoly(mask, hull.round().astype(np.int32), 1.0)
    return deform(mask, draw)


def deform(mask: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Displace each pixel of a mask by a smooth random field (elastic deformation)."""
    height, width = mask.shape
    noise = draw.uniform(-1, 1, (2, height, width)).astype(np.float32)
    across, down = (ELASTIC_ALPHA * cv2.GaussianBlur(field, (0, 0), ELASTIC_SIGMA) for field in noise)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(mask, x + across, y + down, cv2.INTER_LINEAR)


def soften(mask: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Shrink a mask (height, width) float32 by half a random kernel, and blur its edge by another."""
    first, second = draw.choice(EDGE_KERNELS, 2).tolist()
    inside = (cv2.GaussianBlur(mask, (first, first), 0) >= 1 - 1e-4).astype(np.float32)
    sigma = int(draw.choice(EDGE_SIGMAS))
    soft = cv2.GaussianBlur(inside if inside.any() else mask, (second, second), sigma)  # a small mask may shrink to nothing
    return soft / max(float(soft.max()), 1e-6)


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Round to uint8 and clip to 0..255."""
    return values.round().clip(0, 255).astype(np.uint8)

"""The values that pages show on hovering lie where the figure shows them."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tfdetect.pages import html
from tfdetect.plots import style


def drawn(strip, x, y):
    figure, axes = style.create_axes("title", "x", "y")
    axes.grid(False)
    axes.set(xlim=(0, 10), ylim=(5, -1))
    axes.plot(x, y, "s", color="#ff0000", markersize=6, markeredgewidth=0)
    style.add_values(axes, x, y, [f"point {number}" for number in range(len(x))], strip)
    image = np.asarray(Image.open(io.BytesIO(style.to_png(figure))))
    return style.values_of(figure), np.argwhere((image[..., 0] > 250) & (image[..., 1] < 5))[:, ::-1]


def test_a_value_is_where_its_point_is_drawn():
    [(text, x, y, (left, top, width, height))], red = drawn("", [3], [4])
    assert text == "point 0" and [x, y] == pytest.approx(red.mean(axis=0) + 0.5, abs=1)
    assert (left, top) == (x - style.NEAR, y - style.NEAR) and width == height == 2 * style.NEAR


@pytest.mark.parametrize(("strip", "along", "across"), [("column", 0, 1), ("row", 1, 0)])
def test_strips_share_the_axes(strip, along, across):
    """Points that are not in order: each strip ends halfway to the next point, and all together fill the axes."""
    found, _ = drawn(strip, [6, 2, 8], [3, 1, 4])
    areas = np.array([area for *_, area in found])
    starts, ends = areas[:, along], areas[:, along] + areas[:, 2 + along]
    order = np.argsort(starts)
    np.testing.assert_allclose(starts[order][1:], ends[order][:-1])
    places = np.array([point[1 + along] for point in found])
    assert ((starts < places) & (places < ends)).all() and starts[order][1] == pytest.approx(np.sort(places)[:2].mean())
    assert np.ptp(areas[:, across]) == 0 and len(set(areas[:, 2 + across])) == 1


def test_the_page_shows_the_values_of_charts_as_text(tmp_path):
    figure, axes = style.create_axes("", "", "")
    style.add_values(axes, [0.5, np.nan], [0.5, 1], ["</title><script>\udcff", "nowhere"])
    (tmp_path / "chart.png").write_bytes(style.to_png(figure))
    page = html.figure("caption", tmp_path / "chart.png")
    assert page == html.figure("caption", figure) and page.count('class="point"') == 1
    assert "<title>&lt;/title&gt;&lt;script&gt;\udcff</title>" in page and "<script" not in page
    assert 'class="chart"' not in html.figure("a picture", Figure())

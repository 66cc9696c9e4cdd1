"""What a written figure shows inside its axes, read from its files."""

import re

import matplotlib.image
import numpy as np

# A colour is there where it fills so many pixels: more than a stray one.
_PIXELS = 30


def colours(place):
    """Return the colours inside each axes of a figure, as sets; black, white and grey are none.

    Args:
        place: of the figure, without the suffix. The SVG says where the axes are, the PNG what is there.
    """
    drawing, picture = place.with_name(f"{place.name}.svg"), place.with_name(f"{place.name}.png")
    text, image = drawing.read_text(), matplotlib.image.imread(picture)[..., :3]
    # The first patch of an axes is its ground. An axes without one holds a legend alone.
    grounds = re.findall(r'<g id="axes_\d+">\s*<g id="patch_\d+">\s*<path d="([^"]*)"', text)
    assert grounds, f"{drawing} has no axes"
    whole = np.array(re.search(r'viewBox="0 0 (\S+) (\S+)"', text).groups(), float)
    inside = []
    for ground in grounds:
        corners = np.array(re.findall(r"[ML] (\S+) (\S+)", ground), float) / whole
        (left, top), (right, bottom) = (
            np.round(corner * image.shape[1::-1]).astype(int)
            for corner in (corners.min(axis=0), corners.max(axis=0))
        )
        pixels = np.round(255 * image[top:bottom, left:right].reshape(-1, 3)).astype(int)
        pixels = pixels[np.ptp(pixels, axis=1) > 8]
        found, sizes = np.unique(pixels @ [1 << 16, 1 << 8, 1], return_counts=True)
        inside.append({f"#{colour:06x}" for colour in found[sizes >= _PIXELS]})
    return inside

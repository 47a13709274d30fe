"""Pictures as pixels: an SVG as PNG, by resvg, which the extra ``png`` brings."""

import re
from math import sqrt

ZOOM = 2.0
MOST_PIXELS = 40_000_000
"""A larger picture is drawn smaller: each pixel takes four bytes while it is drawn."""
_SIZE = re.compile(r'<svg [^>]*width="(\d+)" height="(\d+)"')


def png(svg: str) -> bytes:
    """On white, twice as large as it says, for screens with many pixels. The extra ``png`` brings what it needs."""
    import resvg_py

    found = _SIZE.search(svg)
    assert found is not None
    width, height = int(found[1]), int(found[2])
    zoom = min(ZOOM, sqrt(MOST_PIXELS / (width * height)))
    return resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff", zoom=zoom)

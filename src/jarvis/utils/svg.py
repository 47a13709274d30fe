"""What pictures share: a page of SVG."""

from collections.abc import Sequence


def page(width: int, height: int, body: Sequence[str]) -> str:
    """A picture of so many pixels; what is in ``body`` is escaped already."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13">'
    return "\n".join([head, *body, "</svg>"]) + "\n"

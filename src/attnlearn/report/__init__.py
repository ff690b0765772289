"""Records to figures and a page; imports nothing of the package but `records`."""

from attnlearn.report.page import headline, scientific, tiles, write

__all__ = ["headline", "scientific", "tiles", "write"]

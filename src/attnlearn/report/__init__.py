"""Records to figures and a page; imports nothing of the package but `records`."""

from attnlearn.report.page import headline, scientific, tiles, write
from attnlearn.report.studies import write_study

__all__ = ["headline", "scientific", "tiles", "write", "write_study"]

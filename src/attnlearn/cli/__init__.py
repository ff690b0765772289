"""The command line: words to calls, and calls to exit codes 0 (done), 1 (honestly not recovered), 2 (wrong use)."""

from attnlearn.cli.commands import app, main

__all__ = ["app", "main"]

"""The command line; `main` is the console script ``agentstream``."""

from agentstream.cli.main import main

__all__ = ["main"]

"""Integration tests run the user's own commands, in a checkout of their own, with a real engine."""

from tests.workspace import checkout, engine

__all__ = ["checkout", "engine"]

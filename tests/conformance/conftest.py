"""Conformance tests build and boot real images: they need a container engine."""

from tests.workspace import engine

__all__ = ["engine"]

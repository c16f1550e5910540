"""Publish images as artifacts in an OCI registry, and take them from there."""

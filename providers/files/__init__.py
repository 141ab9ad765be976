"""Manifests and other files."""

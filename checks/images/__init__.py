"""Checks of what scanners found in images: in registries and in what runs."""

"""Checks of what the clouds answer about clusters, registries and accounts: one module per concern, for all clouds."""

"""Adapters: each turns one source into facts and gaps, and knows nothing of checks."""

__project__ = "kubeposture"

"""The Kubernetes API of any cluster."""

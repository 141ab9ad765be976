"""Azure: AKS clusters, registries, Arc connections and Defender's settings, read through Azure Resource Manager."""

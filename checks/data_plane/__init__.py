"""What runs inside a cluster: workloads, Services, Ingresses."""

"""kubeposture: the application. See providers/ for what it reads and checks/ for how it judges."""

__project__ = "kubeposture"
__version__ = "0.1.0"

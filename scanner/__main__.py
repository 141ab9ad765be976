"""Entry point of the `kubeposture` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, after making sure that `checks` and `providers` are ours: the names are common."""
    import checks
    import providers

    for package in (checks, providers):
        if getattr(package, "__project__", None) != "kubeposture":
            place = next(iter(package.__path__), "?")
            sys.exit(
                f"kubeposture: another package is named {package.__name__!r} ({place}); "
                "install kubeposture into an environment of its own, for instance with pipx"
            )
    from scanner.cli import run

    run()


if __name__ == "__main__":
    main()

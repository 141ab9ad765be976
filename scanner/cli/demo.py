"""kubeposture demo: the whole job on a sample estate that comes with the package."""

from __future__ import annotations

import dataclasses

from scanner.cli.options import Judging, Logging, Reporting, takes_options
from scanner.cli.scan import judge_tasks


@takes_options
def demo(judging: Judging, reporting: Reporting, logging: Logging) -> None:
    """Judge the sample estate: good and bad workloads of every kind. Reads no cluster and no network."""
    from scanner.cli.judge import Scan
    from scanner.cli.sample import demo_tasks
    from scanner.cli.settings import settings_from

    # The sample has a gap on purpose, to show what one looks like: that is no failure of the demo.
    settings, config = settings_from(judging)
    scan = Scan(settings, config, dataclasses.replace(reporting, allow_incomplete=True))
    judge_tasks(demo_tasks(settings), scan, logging)

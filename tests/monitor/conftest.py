"""The shared runs of ``tests/report``: one that is finished, and a copy of it that a test may break."""

from tests.report.conftest import finished_run, own_run

__all__ = ["finished_run", "own_run"]

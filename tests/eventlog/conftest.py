"""Fixtures of the event log's tests."""

from replicated_log import log, running

__all__ = ["log", "running"]

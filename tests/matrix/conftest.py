"""Hypothesis for this folder: no deadline, because a shared machine can stop any example for longer than one."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")

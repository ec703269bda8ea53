"""Logs, metrics and traces."""

from audiofoundation.telemetry.logging import configure_logging

__all__ = ["configure_logging"]

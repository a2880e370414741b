"""From the kernel's clock to everybody's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EARLIEST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LATEST_US = (_LATEST - _EPOCH) // _MICROSECOND


class Clock:
    """Converts timestamps (nanoseconds since boot) to UTC."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        clock = metadata.get("clock")
        readings = clock if isinstance(clock, dict) else {}
        monotonic, realtime = readings.get("monotonic_ns"), readings.get("realtime_ns")
        self._offset_ns = 0
        if isinstance(monotonic, int) and isinstance(realtime, int):
            self._offset_ns = realtime - monotonic

    def wall_time(self, timestamp_ns: int) -> datetime:
        """Return the moment in UTC, to the microsecond; the nearest there is beyond year 1 or 9999."""
        try:
            return _EPOCH + timedelta(microseconds=(timestamp_ns + self._offset_ns) // 1000)
        except OverflowError:
            return _LATEST

    def microseconds(self, timestamp_ns: int) -> int:
        """Return the moment in microseconds since epoch, within the bounds of ``wall_time``."""
        moment = (timestamp_ns + self._offset_ns) // 1000
        return moment if _EARLIEST_US <= moment <= _LATEST_US else _LATEST_US

"""What the machine's energy sensors count, as differences that a server can take for weeks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from curbcut.meter.rapl import SensorLost
from curbcut.meter.sensors import EnergySensor

DEVICE = "device"


class Counter:
    """Sums of sensors by boundary, from when it was made; one thread at a time.

    What a request is given is counted by the GPUs where they count, else by the CPU's packages and
    memory. (`EnergyMeter` keeps each lap, and so grows as long as it runs.)
    """

    def __init__(self, sensors: Sequence[EnergySensor]) -> None:
        self._sensors = tuple(sensors)
        boundaries = {sensor.boundary for sensor in sensors}
        self.boundaries = frozenset({DEVICE} & boundaries or boundaries)
        """Those that count for requests."""
        self._last = [_read(sensor) for sensor in self._sensors]
        self._total: dict[str, float | None] = dict.fromkeys(sorted(boundaries), 0.0)
        self.reason = "" if sensors else "no energy sensor"
        """Why joules are missing, where they are."""

    @property
    def there(self) -> bool:
        """Whether there is any sensor."""
        return bool(self._sensors)

    def read(self) -> float | None:
        """Joules since the last reading at the boundaries that count; None where one was lost."""
        found = 0.0 if self._sensors else None
        for place, sensor in enumerate(self._sensors):
            before, now = self._last[place], _read(sensor)
            self._last[place] = now
            more = None if before is None or now is None else now - before
            if more is None:
                self.reason = f"{sensor.name} was lost for a while"
            total = self._total[sensor.boundary]
            self._total[sensor.boundary] = (
                None if total is None or more is None else total + more)
            if sensor.boundary in self.boundaries:
                found = None if found is None or more is None else found + more
        return found

    def totals(self) -> Mapping[str, float | None]:
        """Joules by boundary up to the last reading; None where a part of them is not known."""
        return dict(self._total)


def _read(sensor: EnergySensor) -> float | None:
    try:
        return sensor.joules()
    except SensorLost:
        return None

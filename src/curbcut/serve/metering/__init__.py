"""Joules, seconds and money of each request: measured where sensors are, modelled where not.

    meter = open_meter({"small": run}, sensors=open_sensors(), record=...)
    with meter:
        ... every engine's OnStep is meter.listener(name) ...
        share = meter.take("small", tickets)     # once, when a request is settled

`tariff` prices a model that nobody has set a price for.
"""

from curbcut.serve.metering.meter import StepMeter
from curbcut.serve.metering.opening import open_meter
from curbcut.serve.metering.shares import Share, Where
from curbcut.serve.metering.tariff import tariff

__all__ = ["Share", "StepMeter", "Where", "open_meter", "tariff"]

"""What :mod:`fusewire.forwarding` is built of, besides the public names of this package."""

from fusewire.parking._former_keywords import FormerKeywords, Replay, policies
from fusewire.parking._settings import queues_of
from fusewire.parking.backoff import Backoff, level_of
from fusewire.parking.errors import HandBack
from fusewire.parking.events import Listeners
from fusewire.parking.lanes import Dependencies
from fusewire.parking.record import Record

__all__ = [
    "Backoff",
    "Dependencies",
    "FormerKeywords",
    "HandBack",
    "Listeners",
    "Record",
    "Replay",
    "level_of",
    "policies",
    "queues_of",
]

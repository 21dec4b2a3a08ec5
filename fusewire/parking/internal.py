"""What :mod:`fusewire.forwarding` is built of, besides the public names of this package."""

from fusewire.parking._adapting import keep_no_texts, settle_calls, share_reports
from fusewire.parking._asking import ask
from fusewire.parking._decisions import SUBMITTED, Dead, Done
from fusewire.parking._dependencies import Dependencies
from fusewire.parking._errors import Requeue
from fusewire.parking._former_keywords import FormerKeywords, Replay, policies
from fusewire.parking._history import History, from_headers
from fusewire.parking._in_flight import InFlight
from fusewire.parking._lane_log import LaneLog
from fusewire.parking._live_calls import LiveCalls
from fusewire.parking._replies import Reply
from fusewire.parking._settings import MOST_HELD, queues_of, taken_over
from fusewire.parking._settlements import Settlements
from fusewire.parking._signals import until_signal
from fusewire.parking._status import LaneState, status_of
from fusewire.parking._status_watch import BrokerContact, Reading, StatusWatch
from fusewire.parking._supervision import keep_all_running
from fusewire.parking._tracing import Tracing
from fusewire.parking._waiting import Backoff, level_of, wait_any

__all__ = [
    "MOST_HELD",
    "SUBMITTED",
    "Backoff",
    "BrokerContact",
    "Dead",
    "Dependencies",
    "Done",
    "FormerKeywords",
    "History",
    "InFlight",
    "LaneLog",
    "LaneState",
    "LiveCalls",
    "Reading",
    "Replay",
    "Reply",
    "Requeue",
    "Settlements",
    "StatusWatch",
    "Tracing",
    "ask",
    "from_headers",
    "keep_all_running",
    "keep_no_texts",
    "level_of",
    "policies",
    "queues_of",
    "settle_calls",
    "share_reports",
    "status_of",
    "taken_over",
    "until_signal",
    "wait_any",
]

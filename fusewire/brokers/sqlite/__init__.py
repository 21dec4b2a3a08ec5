"""The embedded broker: durable queues in one SQLite file, for the processes of one host."""

from fusewire.brokers.sqlite._broker import SQLiteBroker

__all__ = ["SQLiteBroker"]

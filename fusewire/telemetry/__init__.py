"""What a service shows of its circuits, messages and calls: metrics and health.

Nothing imports this room. It only reads, and what is guarded never waits for it. Each part is a
module of its own, because some need an extra: :mod:`fusewire.telemetry.health` and
:mod:`fusewire.telemetry.prometheus`.
"""

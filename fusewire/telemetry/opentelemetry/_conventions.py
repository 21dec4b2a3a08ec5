"""The names of spans' attributes and events: OpenTelemetry's, and those of Fusewire beside them.

OpenTelemetry's are its semantic conventions for messaging, in the version of :data:`SCHEMA_URL`
(https://github.com/open-telemetry/semantic-conventions/tree/v1.44.0/docs/messaging). They may still
change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusewire.parking import ReceivedMessage

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE = "fusewire"
"""The instrumentation scope of all spans and metrics."""

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
MESSAGE_ID = "messaging.message.id"
CONVERSATION_ID = "messaging.message.conversation_id"
ROUTING_KEY = "messaging.rabbitmq.destination.routing_key"
ERROR_TYPE = "error.type"

OPERATION_ID = "fusewire.operation_id"
LANE = "fusewire.lane"
OUTCOME = "fusewire.outcome"
REASON = "fusewire.reason"
ATTEMPTS = "fusewire.attempts"
TIMES_PARKED = "fusewire.times_parked"
LINK = "fusewire.link"
"""What a link is to: ``origin``, ``move`` or ``attempt``."""

CIRCUIT = "circuit_name"
"""The name of a circuit, as the label of metrics."""
STATE = "state"
RETRY_AFTER = "retry_after"

REJECTED = "circuit_breaker.rejected"
"""The event on the span in which a call was rejected."""
PARKED = "fusewire.parked"
"""The event on the span in which a call was parked."""


def process_attributes(received: ReceivedMessage) -> dict[str, str]:
    """Return what is known of a message when its span begins."""
    message = received.message
    attributes = {
        SYSTEM: received.system,
        OPERATION_NAME: "process",
        OPERATION_TYPE: "process",
        DESTINATION: destination(message.exchange, message.routing_key, received.queue),
        MESSAGE_ID: message.message_id,
        CONVERSATION_ID: message.correlation_id,
        ROUTING_KEY: message.routing_key if received.system == "rabbitmq" else "",
        OPERATION_ID: received.operation_id,
        LANE: received.lane,
    }
    return {name: value for name, value in attributes.items() if value}


def destination(exchange: str, routing_key: str, queue: str) -> str:
    """Return the name of what a message was received from, by the conventions for RabbitMQ."""
    return ":".join(part for part in dict.fromkeys((exchange, routing_key, queue)) if part)

"""One worker for each queue: new messages, new messages in their order, and parked ones."""

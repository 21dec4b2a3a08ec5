"""The demo: payments and orders through an outage of the server that they need."""

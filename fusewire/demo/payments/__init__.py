"""The payments service, as generated from its .proto."""

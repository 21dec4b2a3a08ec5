"""Sync channels: how their calls are made, watched and answered."""

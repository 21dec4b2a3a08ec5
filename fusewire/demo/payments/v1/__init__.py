"""Version 1 of the payments service."""

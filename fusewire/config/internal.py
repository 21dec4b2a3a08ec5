"""What the commands take of this room, besides its public names."""

from fusewire.config._export import hidden_values, to_yaml
from fusewire.config._load import read
from fusewire.config._schema import json_schema
from fusewire.config._showing import show_field

__all__ = ["hidden_values", "json_schema", "read", "show_field", "to_yaml"]

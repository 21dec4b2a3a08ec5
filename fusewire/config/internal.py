"""What the commands take of this room, besides its public names."""

from fusewire.config._export import left_out, to_yaml
from fusewire.config._hash import hash_of
from fusewire.config._load import read
from fusewire.config._schema import json_schema
from fusewire.config._showing import show_field

__all__ = ["hash_of", "json_schema", "left_out", "read", "show_field", "to_yaml"]

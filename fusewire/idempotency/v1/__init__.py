"""Version 1 of the service `Operations`: what it says is generated from its .proto."""

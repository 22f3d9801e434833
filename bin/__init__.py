"""The walden command and what it starts."""

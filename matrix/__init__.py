"""The Matrix protocol as pure functions and values: no I/O, nothing of ours imported."""

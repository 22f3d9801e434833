"""The consumer that decides, and its query interface."""

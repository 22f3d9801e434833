"""Uploads and previews of URLs: what brings bytes into the server."""

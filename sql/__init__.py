"""Everything the database holds, as SQL files."""

"""Client and federation endpoints that change something."""

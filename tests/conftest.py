"""What every test can ask for. Fixtures are in modules of their own, one per concern."""

pytest_plugins = ["fixtures_figures", "fixtures_openapi", "fixtures_postgres"]

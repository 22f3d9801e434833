"""The contract between components: append, subscribe, positions and tokens, pools, configuration."""

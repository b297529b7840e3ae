"""The settings: every section of the configuration in a file of its own, with defaults and meanings."""

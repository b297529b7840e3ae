"""Reports of a run: events on their way from workers to the driver, its listeners, and the history that they leave."""

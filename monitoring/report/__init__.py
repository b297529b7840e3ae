"""The report about one run: an HTML page made from the artefacts of the run's workspace."""

"""A trained model as a web service on Ray Serve: `alphafuse serve`."""

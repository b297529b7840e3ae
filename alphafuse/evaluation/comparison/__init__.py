"""Methods and seeds side by side."""

"""Number formats and colours that the terminal, the report and the dashboard share."""

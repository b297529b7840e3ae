"""Folders on disks and in buckets: whole files or none, retries, and what a user alone may read."""

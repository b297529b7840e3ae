"""What a training writes while it runs, and how a resume, an update or a ranking goes on from it."""

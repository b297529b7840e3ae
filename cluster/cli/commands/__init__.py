"""The commands by what they are about; each module has a function `register` that adds its commands."""

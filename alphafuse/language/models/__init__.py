"""Language models: their files, how they are meant to be used, and where this machine keeps them."""

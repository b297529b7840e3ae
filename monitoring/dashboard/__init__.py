"""A local web page about runs, made from their workspaces alone; it changes nothing in them."""

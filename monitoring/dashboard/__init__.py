"""A local web page about runs that reads their workspaces and changes nothing in them."""

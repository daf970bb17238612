"""`make bench`: what the parts do, as shares of what this machine can do."""

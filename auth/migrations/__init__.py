"""Auth's schema, as a sequence of steps; `healthguard auth migrate` takes them."""

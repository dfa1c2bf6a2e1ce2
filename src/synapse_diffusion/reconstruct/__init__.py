"""A decoder run and a generator -> pictures of what was seen, beside their controls, and scores."""

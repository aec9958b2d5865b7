"""A page to try a network in a browser: the server's side, and what it sends (static/)."""

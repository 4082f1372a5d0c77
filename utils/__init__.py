"""Small helpers that every folder may use."""

"""Everything that needs matplotlib."""

"""All pictures: what needs matplotlib."""

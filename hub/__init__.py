"""What leaves the house: code files, model cards, uploads."""

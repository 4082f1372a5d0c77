"""What goes to the Hub: code files, model cards, uploads."""

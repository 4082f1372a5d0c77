"""For the Hub: code files beside a saved model, model cards, uploads."""

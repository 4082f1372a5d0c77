"""What every encoder-decoder under masks needs, our own network and bridges alike."""

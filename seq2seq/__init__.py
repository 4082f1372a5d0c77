"""What every encoder-decoder under masks needs, whoever its encoder and decoder are from."""

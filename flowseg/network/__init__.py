"""The network: encoder, decoder, their layers, and weights in a small file. Keras alone."""

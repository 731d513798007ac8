"""The network: encoder, decoder, their layers, and compact storage of weights. Only Keras."""

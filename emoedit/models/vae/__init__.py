"""A convolutional variational autoencoder."""

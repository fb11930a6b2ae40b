"""StyleGAN2: network, weight files, inversion."""

"""A DDPM's U-Net: DDIM inversion and Asyrp's asymmetric generation."""

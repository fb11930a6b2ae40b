"""The VAE of face-flex."""

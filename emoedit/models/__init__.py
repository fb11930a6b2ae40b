"""Frozen generative models behind one interface: they know images, not emotions."""

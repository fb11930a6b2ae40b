"""Frozen generative models behind one interface; none of them models emotions."""

"""Stability AI's image service."""

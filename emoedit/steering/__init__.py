"""Steerings turn emotions into controls; they are the fitted part of an editor beside its frozen backbone."""

"""The parts of a composite: how a change is put into the photograph."""

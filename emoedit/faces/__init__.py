"""Faces in photographs: detection, alignment, landmarks, masks, teeth, tones and movements."""

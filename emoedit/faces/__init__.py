"""From a photograph to an aligned crop and back: detection, alignment, masks, paste-back."""

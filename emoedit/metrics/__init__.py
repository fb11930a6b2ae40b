"""What an edit changed, in numbers: identity, perceptual distance, expression, landmarks, quality, control."""

"""Small networks that both measuring and editing use."""

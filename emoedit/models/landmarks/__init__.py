"""No model: landmarks move, and the photograph's pixels move with them."""

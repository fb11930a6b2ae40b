"""No model: references that move pixels and light."""

"""What the scripts of this folder share; they find it beside themselves."""

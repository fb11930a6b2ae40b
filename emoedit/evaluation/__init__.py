"""Editors measured on photographs: one photograph, data sets, sweeps."""

"""Training and fitting: data sets, preparation, one accelerate loop, losses."""

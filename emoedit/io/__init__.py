"""Files in and out: pictures, weights, results, locks."""

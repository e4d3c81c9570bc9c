"""The published model: this directory is exactly what travels to the Hub beside the weights."""

"""kerasbits: learn how many bits each part of a Keras model needs."""
